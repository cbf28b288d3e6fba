// The container that holds a pod's namespaces; made here because no image can be pulled where the tests run.
module penstock.dev/tools/pause

go 1.24.0
