# One job under a label that wants a GPU, one under a label that does not.
from canids_shared.planning.resource_labels import labels

needs = labels(workflow)


rule all_needs:
    input:
        "gpu.txt",
        "table.txt",


rule gpu:
    output:
        "gpu.txt",
    resources:
        **needs("gpu_train"),
    shell:
        "touch {output}"


rule table:
    output:
        "table.txt",
    resources:
        **needs("small"),
    shell:
        "touch {output}"
