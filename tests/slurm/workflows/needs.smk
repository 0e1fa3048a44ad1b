# One job under a label that wants a GPU, one under a label that does not.
from canids_shared.planning.resource_labels import resources_by_label

resources_for = resources_by_label(workflow)


rule all_needs:
    input:
        "gpu.txt",
        "table.txt",


rule gpu:
    output:
        "gpu.txt",
    resources:
        **resources_for("gpu_train"),
    shell:
        "touch {output}"


rule table:
    output:
        "table.txt",
    resources:
        **resources_for("small"),
    shell:
        "touch {output}"
