"""ClusterService: this version has the clusters that it was started with."""

from collections.abc import Mapping
from typing import Any, NoReturn

from chassis import errors
from chassis.paging import make_token, read_token
from penstock.dplo.v1 import cluster_service_pb2, cluster_service_pb2_grpc

from dplo.api import paging, view
from dplo.api.errors import not_available
from dplo.app.ports import ClusterOperator


class ClusterServicer(cluster_service_pb2_grpc.ClusterServiceServicer):
    """The methods of the contract."""

    def __init__(self, clusters: Mapping[str, ClusterOperator]) -> None:
        self._clusters = clusters

    async def GetCluster(self, request: Any, context: Any) -> cluster_service_pb2.Cluster:
        """See the contract."""
        operator = self._clusters.get(request.name)
        if operator is None:
            raise errors.NotFound(
                f"{request.name} does not exist; there is {', '.join(sorted(self._clusters))}",
                reason="CLUSTER_NOT_FOUND",
                metadata={"cluster": request.name},
            )
        return view.cluster(await operator.facts())

    async def ListClusters(self, request: Any, context: Any) -> cluster_service_pb2.ListClustersResponse:
        """See the contract."""
        after = read_token(request.page_token)
        size = paging.page_size(request.page_size)
        names = [name for name in sorted(self._clusters) if name > after]
        clusters = [view.cluster(await self._clusters[name].facts()) for name in names[:size]]
        token = make_token(names[size - 1]) if len(names) > size else ""
        return cluster_service_pb2.ListClustersResponse(clusters=clusters, next_page_token=token)

    async def _refuse(self, request: Any, context: Any) -> NoReturn:
        raise not_available("Adding, changing and testing clusters", "clusters/local is there by itself")

    CreateCluster = UpdateCluster = DeleteCluster = TestCluster = _refuse
