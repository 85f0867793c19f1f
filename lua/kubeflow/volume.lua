-- Components that make and delete volume claims. A server recognises them by their images and runs no container.
-- Their interface, with its descriptions, is that of kfp.kubernetes.CreatePVC and DeletePVC.
local component = require "kubeflow.component"

local DOCS = "https://kubernetes.io/docs/reference/kubernetes-api/"
  .. "config-and-storage-resources/persistent-volume-claim-v1/"
local CLAIM, SPEC = ("<%s#PersistentVolumeClaim>`_"):format(DOCS), ("<%s#PersistentVolumeClaimSpec>`_"):format(DOCS)

local volume = {}

--- create_pvc { access_modes = { "ReadWriteOnce" }, size = "5Gi", pvc_name | pvc_name_suffix, ... }; output `name`
volume.create_pvc = component.define {
  name = "createpvc", image = "argostub/createpvc",
  inputs = {
    access_modes = { "list", description = "Values for ``PersistentVolumeClaim.spec.accessModes``." },
    size = { "string", description = "The size of storage requested by the PVC that will be\nprovisioned. For example, "
      .. "``'5Gi'``. Corresponds to\n`PersistentVolumeClaim.spec.resources.requests.storage\n" .. SPEC .. "." },
    pvc_name = { "string", optional = true, description = "Name of the PVC. Corresponds to\n"
      .. "`PersistentVolumeClaim.metadata.name\n" .. CLAIM
      .. ".\nOnly one of ``pvc_name`` and ``pvc_name_suffix`` can be provided." },
    pvc_name_suffix = { "string", optional = true,
      description = "Prefix to use for a dynamically generated name, which\n"
      .. "will take the form ``<argo-workflow-name>-<pvc_name_suffix>``. Only\n"
      .. "one of ``pvc_name`` and ``pvc_name_suffix`` can be provided." },
    storage_class_name = { "string", default = "", description = "Name of StorageClass from which to provision the PV\n"
      .. "to back the PVC. ``None`` indicates to use the cluster's default\n"
      .. "storage_class_name. Set to ``''`` for a statically specified PVC." },
    volume_name = { "string", optional = true, description = "Pre-existing PersistentVolume that should back the\n"
      .. "provisioned PersistentVolumeClaim. Used for statically\nspecified PV only. Corresponds to\n"
      .. "`PersistentVolumeClaim.spec.volumeName\n" .. SPEC .. "." },
    annotations = { "dict", optional = true, description = "Annotations for the PVC's metadata. Corresponds to\n"
      .. "`PersistentVolumeClaim.metadata.annotations\n" .. CLAIM .. "." },
    data_source = { "dict", optional = true,
      description = "Specifies the data source for the PVC. This can be used to\n"
      .. "create a PVC from a VolumeSnapshot or to clone an existing PVC.\n"
      .. "Should be a dictionary with ``'apiGroup'``, ``'kind'``, and\n``'name'`` keys. For example:\n"
      .. "``{'apiGroup': 'snapshot.storage.k8s.io', 'kind': 'VolumeSnapshot', 'name': 'my-snapshot'}``.\n"
      .. "Corresponds to `PersistentVolumeClaim.spec.dataSource\n" .. SPEC .. "." },
  },
  outputs = { name = "string" },
}

--- delete_pvc { pvc_name = task.outputs.name }
volume.delete_pvc = component.define {
  name = "deletepvc", image = "argostub/deletepvc",
  inputs = { pvc_name = { "string",
    description = "Name of the PVC to delete. Supports passing a runtime-generated name, "
    .. "such as a name provided by ``kubernetes.CreatePvcOp().outputs['name']``." } },
}

return volume
