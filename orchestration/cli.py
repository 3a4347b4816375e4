"""The `alto` command. Imports that take seconds are made inside the command that needs them."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from data_contracts.errors import InputError
from jobs.runner.layout import StageAddress, project_root
from orchestration import benchmark, convert, register
from orchestration.segment import segment
from orchestration.sweep import sweep
from orchestration.tokenize import detokenize, tokenize

app = typer.Typer(
    help="Train, check, version, benchmark and ship ALTo mask tokenizers and ALToLLM.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="Profile in infra/profiles, or 'small' (the base).")],
) -> None:
    """Write params.yaml from a profile."""
    from orchestration.profiles import write_profile

    print(f"wrote {write_profile(enter_project(), name).name} for profile {name}")


@app.command()
def plan(
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", help="section.key=value, as if params.yaml said so; may be repeated."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what would run, why, and what it took last time, before anything runs."""
    from orchestration.plan import make_plan, text_table

    table = make_plan(enter_project(), changes or ())
    print(table.model_dump_json(indent=1) if as_json else text_table(table))


@app.command()
def accept(
    stage: Annotated[str, typer.Argument(help="Stage, or stage@partition.")],
    reason: Annotated[str, typer.Option(help="Why the change cannot matter; kept in infra/accepted.jsonl.")],
) -> None:
    """Record a stage as up to date after a change that cannot matter, without running it."""
    from orchestration.accept import accept_change

    recorded = accept_change(enter_project(), StageAddress.parse(stage), reason)
    print(f"{recorded.address}: accepted, data version {recorded.data_version}")


@app.command()
def sync() -> None:
    """Show in Dagster what `dvc repro` has done, and register recorded models in MLflow."""
    from orchestration.local_services import bring_up_to_date

    bring_up_to_date(enter_project())


@app.command()
def housekeeping(
    delete: Annotated[
        bool, typer.Option("--delete", help="Delete what is listed to go; else only list.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", help="Name each thing.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show what is old and that nothing refers to: runs, checkpoints, cached data, versions; delete it if asked.

    Exit status 1 where something could not be looked at or deleted.
    """
    from dagster import DagsterInstance

    from orchestration.housekeeping.run import keep_house
    from orchestration.housekeeping.table import text_table
    from orchestration.local_services import use_project_home

    root = enter_project()
    use_project_home(root)
    with DagsterInstance.get() as instance:
        table = keep_house(root, instance, delete=delete)
    print(table.model_dump_json(indent=1) if as_json else text_table(table, verbose=verbose))
    if table.left_out:
        raise typer.Exit(1)


@app.command()
def promote(
    rollback: Annotated[bool, typer.Option(help="Make the previous champion champion again.")] = False,
) -> None:
    """Make the registered challenger champion if it is better; say why in one table."""
    from orchestration.promotion.decision import promote as promote_challenger
    from orchestration.promotion.decision import roll_back
    from orchestration.promotion.table import text_table

    root = enter_project()
    if rollback:
        print(f"altollm {roll_back(root)} is champion again")
        return
    decision = promote_challenger(root)
    print(f"{text_table(decision.findings)}\n\n{decision.summary}")
    if not decision.better:
        raise typer.Exit(1)


@app.command()
def alert(
    test: Annotated[bool, typer.Option("--test", help="Send a sample to everybody named there.")] = False,
) -> None:
    """Say who is told of failures and promotions (infra/alerts.yaml)."""
    from orchestration.alerts.sample import send_samples, who_is_told

    lines, failed = send_samples(enter_project()) if test else (who_is_told(enter_project()), False)
    print("\n".join(lines))
    if failed:
        raise typer.Exit(1)


@app.command()
def report(
    out: Annotated[
        Path | None, typer.Option(help="HTML file; default: reports/<profile>/report.html.")
    ] = None,
) -> None:
    """Put the benchmark report and all that is known around it (training, champion, data, versions) on one page."""
    from orchestration.report.page import write_report

    given = None if out is None else out.absolute()
    print(write_report(enter_project(), given))


@app.command()
def compare(
    before: Annotated[
        str,
        typer.Argument(
            help="altollm/3, altollm@champion, alto-tokenizer/2, an experiment, a revision, workspace."
        ),
    ] = "altollm@champion",
    after: Annotated[str, typer.Argument(help="The same; differences are this one less the first.")] = (
        "altollm@challenger"
    ),
    out: Annotated[
        Path | None, typer.Option(help="HTML file with all of it, and answers as pictures.")
    ] = None,
    fetch: Annotated[bool, typer.Option(help="Bring results that only the DVC remote has.")] = False,
) -> None:
    """Compare two versions: parameters, data, code, figures with intervals, answers."""
    from orchestration.comparison.comparison import compare as compare_versions
    from orchestration.comparison.page import write_page
    from orchestration.comparison.table import text_table

    page = None if out is None else out.absolute()
    comparison = compare_versions(enter_project(), before, after, fetch)
    print(text_table(comparison))
    if page is not None:
        write_page(comparison, page)
        print(f"\n{page}")


@app.command(name="warm-start")
def warm_start() -> None:
    """Let the next training start from the champion's weights: writes base_weights in params.yaml."""
    from orchestration.automation.warm_start import start_from_champion

    print(f"training starts from {', '.join(start_from_champion(enter_project()))}: see `alto plan`")


@app.command()
def results() -> None:
    """Print the table of results of the last benchmark report, and where to look."""
    from orchestration.results import print_results

    print_results(enter_project())


@app.command()
def ui(
    dagster_port: Annotated[int, typer.Option(help="Port of the Dagster pages.")] = 3000,
    mlflow_port: Annotated[int, typer.Option(help="Port of the MLflow pages.")] = 5000,
    pages_port: Annotated[int, typer.Option(help="Port of reports and Data Docs.")] = 3001,
) -> None:
    """Start Dagster and MLflow on loopback, up to date with what `dvc repro` has done."""
    from orchestration.local_services import serve

    serve(enter_project(), dagster_port, mlflow_port, pages_port)


app.command()(tokenize)
app.command()(detokenize)
app.command()(segment)
app.command()(sweep)


app.add_typer(convert.app, name="convert")
app.add_typer(register.app, name="register")
app.add_typer(benchmark.app, name="benchmark")


def enter_project() -> Path:
    root = project_root()
    os.chdir(root)
    return root


def main() -> None:
    """Run the command; wrong input is one line and exit status 2."""
    try:
        app()
    except InputError as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
