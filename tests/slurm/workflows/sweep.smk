# Two hundred short jobs in groups that the profile puts together: most wait in a closed partition, some run and do not
# end by themselves.
POINTS = range(188)
RUNNING = range(12)


rule all_sweep:
    input:
        expand("points/{point}.txt", point=POINTS),
        expand("running/{point}.txt", point=RUNNING),


rule states:
    output:
        "points/{point}.txt",
    group:
        "states"
    resources:
        slurm_partition="closed",
    shell:
        "touch {output}"


rule decisions:
    output:
        "running/{point}.txt",
    group:
        "decisions"
    shell:
        "sleep 600; touch {output}"
