# Results of a sweep's points on `select` (pipelines/sweep); no file of a test scenario is read. The Snakefile includes
# this where its config has a sweep.
from canids_evaluate.sweeps.sweep_planning import points_of_subspace, runs_of_point
from canids_shared.planning.stage import LOGGED
from canids_shared.sweeps.space import Space

space = Space(stage.sweep["points"])
SWEEP = f"<sweeps>/{stage.sweep['name']}"


rule sweep_point:
    input:
        runs=runs_of_point(stage, space),
    output:
        f"{SWEEP}/points/{space.wildcard_pattern}/select.json",
    log:
        f"{SWEEP}/points/{space.wildcard_pattern}/log.txt",
    wildcard_constraints:
        point=space.constraint,
    conda:
        "environment.yaml"
    threads: 1
    resources:
        **resources_for("small"),
    params:
        spec=stage.spec(
            "canids_evaluate.sweep_point",
            instance=space.run_instance,
            values=space.instance,
            seeds=lambda wildcards: list(stage.sweep["instances"][space.run_instance(wildcards)]),
            trainings=list(stage.sweep["metric"]),
        ),
    message:
        "{wildcards.dataset}: results of {wildcards.point} on select"
    shell:
        (
            '"$CANIDS_EVALUATE_PYTHON" $CANIDS_EVALUATE_STAND_INS -m canids_evaluate.sweep_point --spec {params.spec:q} --output {output}'
            " --runs {input.runs}"
        )
        + LOGGED


rule sweep:
    input:
        points_of_subspace(stage, space, f"{SWEEP}/points/{space.wildcard_pattern}/select.json"),
    output:
        markdown=f"{SWEEP}/{{subspace}}/results.md",
        csv=f"{SWEEP}/{{subspace}}/results.csv",
        params=f"{SWEEP}/{{subspace}}/params.tsv",
        parallel=f"{SWEEP}/{{subspace}}/parallel.svg",
        importance=f"{SWEEP}/{{subspace}}/importance.svg",
        best=f"{SWEEP}/{{subspace}}/best.svg",
    log:
        f"{SWEEP}/{{subspace}}/log.txt",
    wildcard_constraints:
        subspace="|".join(stage.sweep["subspaces"]),
    conda:
        "environment.yaml"
    threads: 1
    resources:
        **resources_for("small"),
    params:
        spec=stage.spec(
            "canids_evaluate.sweep",
            "seed",
            "trees",
            options=list(next(iter(space.points.values()))),
            **{key: stage.sweep[key] for key in ("name", "stage", "metric")},
        ),
    message:
        "{wildcards.dataset}: sweep, {wildcards.subspace}"
    shell:
        (
            '"$CANIDS_EVALUATE_PYTHON" $CANIDS_EVALUATE_STAND_INS -m canids_evaluate.sweep --spec {params.spec:q}'
            " --markdown {output.markdown} --csv {output.csv} --params {output.params}"
            " --parallel {output.parallel} --importance {output.importance} --best {output.best}"
            " --points {input}"
        )
        + LOGGED
