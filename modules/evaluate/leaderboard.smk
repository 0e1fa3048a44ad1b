# Folds, seeds and regimes in one table, with the detectors of others; included where there are folds.
from canids_evaluate.planning import BOARD_FIGURES, own_scores_of, own_scores_of_folds, trainings_of_folds


rule own_scores:
    input:
        calibrate=own_scores_of(stage, "calibrate"),
        scenarios=own_scores_of(stage, scenarios),
        enrolment=own_scores_of(stage, enrolment),
        graphs=stage.upstream(
            "<graphs>{instance}/{split}.safetensors", splits=lambda w: ["calibrate", *scenarios(w), *enrolment(w)]
        ),
    output:
        metrics="<leaderboard>/own_scores/{own}{instance}/metrics.json",
        curves="<leaderboard>/own_scores/{own}{instance}/curves.json",
    log:
        "<leaderboard>/own_scores/{own}{instance}/log.txt",
    wildcard_constraints:
        own="[a-z][a-z0-9_]*",
    conda:
        "environment.yaml"
    threads: 1
    resources:
        **resources_for("small"),
    params:
        spec=stage.spec(
            "canids_evaluate.evaluate",
            *EVALUATION,
            variant=None,
            own=lambda wildcards: wildcards.own,
            column=lambda wildcards: stage.config[""]["own_scores"][wildcards.own]["column"],
            scenarios=scenarios,
            captures=captures,
        ),
    message:
        "{wildcards.dataset}{wildcards.instance}: evaluation of {wildcards.own}"
    shell:
        '"$CANIDS_EVALUATE_PYTHON" $CANIDS_EVALUATE_STAND_INS -m canids_evaluate.evaluate --spec {params.spec:q}'
        " --metrics {output.metrics} --curves {output.curves}"
        " --calibrate {input.calibrate:q} --scenarios {input.scenarios:q} --enrolment {input.enrolment:q} --graphs {input.graphs}"
        + LOGGED


rule leaderboard:
    input:
        metrics=files_of_folds(stage, "metrics.json"),
        curves=files_of_folds(stage, "curves.json"),
        own_metrics=own_scores_of_folds(stage, "metrics.json"),
        own_curves=own_scores_of_folds(stage, "curves.json"),
        trainings=trainings_of_folds(stage),
    output:
        **{name: f"<leaderboard>/{name}.svg" for name in BOARD_FIGURES},
        json="<leaderboard>/leaderboard.json",
        markdown="<leaderboard>/leaderboard.md",
        csv="<leaderboard>/leaderboard.csv",
        page="<leaderboard>/leaderboard.html",
    log:
        "<leaderboard>/leaderboard.log",
    conda:
        "environment.yaml"
    threads: 1
    resources:
        **resources_for("small"),
    params:
        spec=stage.spec(
            "canids_evaluate.leaderboard",
            "ablations",
            "own_scores",
            "enrolment",
            left_out=lambda wildcards: {fold: stage.left_out(fold) for fold in folds(stage, wildcards.dataset)},
        ),
        figures=output_options(BOARD_FIGURES),
    message:
        "{wildcards.dataset}: leaderboard"
    shell:
        '"$CANIDS_EVALUATE_PYTHON" $CANIDS_EVALUATE_STAND_INS -m canids_evaluate.leaderboard --spec {params.spec:q}'
        " --json {output.json} --markdown {output.markdown} --csv {output.csv}"
        " --page {output.page} {params.figures} --metrics {input.metrics} {input.own_metrics} --trainings {input.trainings}"
        + LOGGED
