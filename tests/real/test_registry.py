"""OCI registry: what we push is read by programs that know nothing of us."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.tools import oci
from tests.real.servers.process import program, run
from tests.real.servers.registry import Registry

IMAGE = oci.image({"etc/model": b"digits 1.0.0"}, ["/bin/serve"])


def test_skopeo_pulls_what_was_pushed_and_umoci_unpacks_it(
    registry: Registry, repository: str, tmp_path: Path
) -> None:
    reference = registry.push(IMAGE, repository, "1.0.0")
    assert reference.endswith(IMAGE.manifest.digest)
    layout = tmp_path / "layout"
    skopeo = [program("registry", "skopeo"), "--insecure-policy"]
    run([*skopeo, "copy", "--src-tls-verify=false", f"docker://{reference}", f"oci:{layout}:1.0.0"])
    (entry,) = json.loads((layout / "index.json").read_text())["manifests"]
    assert entry["digest"] == IMAGE.manifest.digest
    umoci = program("registry", "umoci")
    run([umoci, "unpack", "--rootless", "--image", f"{layout}:1.0.0", str(tmp_path / "bundle")])
    assert (tmp_path / "bundle/rootfs/etc/model").read_bytes() == b"digits 1.0.0"


def test_a_tag_moves_and_a_digest_does_not(registry: Registry, repository: str) -> None:
    first = registry.push(IMAGE, repository, "latest")
    other = oci.image({"etc/model": b"digits 2.0.0"}, ["/bin/serve"])
    registry.push(other, repository, "latest")
    inspect = [program("registry", "skopeo"), "inspect", "--tls-verify=false"]
    by_tag = json.loads(run([*inspect, f"docker://{registry.host}/{repository}:latest"]))
    by_digest = json.loads(run([*inspect, f"docker://{first}"]))
    assert by_tag["Digest"] == other.manifest.digest
    assert by_digest["Digest"] == IMAGE.manifest.digest
