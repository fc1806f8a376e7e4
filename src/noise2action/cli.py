"""The command line `n2a`: finds the verb, prints errors as one line. Verbs import torch, this file does not."""

import contextlib
import io
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from . import __version__
from .errors import Noise2ActionError, did_you_mean


@dataclass(frozen=True)
class Verb:
    """A verb of the command line."""

    module: str
    arguments: str
    """Name of the dataclass that its options are generated from."""
    usage: str
    summary: str
    overrides: bool = False
    """Whether options of no field are overrides of a recipe's fields."""


VERBS = {
    "demo": Verb("demo", "Demo", "", "train diffusion and regression on two_routes, compare, write a report (minutes)"),
    "train": Verb("train", "Train", "RECIPE --out RUN", "train a policy on demonstrations", overrides=True),
    "eval": Verb("evaluate", "Eval", "RUN", "roll a policy out on fresh seeds; success with intervals"),
    "compare": Verb(
        "compare",
        "CompareArgs",
        "SUITE --out DIR",
        "every method on the same demonstrations and episodes: table, figures",
    ),
    "report": Verb("report", "ReportArgs", "RUN", "write one self-contained HTML page of a run"),
    "explain": Verb(
        "explain", "Explain", "RUN", "what a policy looks at, and what moves its actions: figures, numbers"
    ),
    "info": Verb("info", "Info", "RUN|DATA", "show what a run or a data set holds"),
    "check env": Verb(
        "check", "CheckEnv", "MODULE:CLASS|TASK", "whether an environment of your own keeps the contract"
    ),
    "check policy": Verb("check", "CheckPolicy", "RUN", "whether a policy keeps the contract"),
    "toy": Verb(
        "toy", "Toy", "NAME|FILE --out DIR", "learn points in the plane by diffusion; metrics, figures, animation"
    ),
    "image": Verb(
        "image", "Image", "digits --out DIR", "learn small images by diffusion, by class; also in a latent space"
    ),
    "sample": Verb("sample", "Sample", "DIR", "sample a toy or image model with any solver, grid and guidance"),
    "likelihood": Verb(
        "likelihood", "Likelihood", "RUN|DIR", "exact log-likelihood of held-out data or demonstrated chunks"
    ),
    "study": Verb("study", "StudyArgs", "NAME|--list", "measure one question of the theory: table, figure, finding"),
    "data generate": Verb("data", "Generate", "ENV --out DATA", "simulate demonstrations of a task"),
    "import lerobot": Verb("importing", "ImportLeRobot", "DIR OUT", "make a run of a diffusion policy of LeRobot"),
    "import stanford": Verb("importing", "ImportStanford", "FILE OUT", "make a run of an original .ckpt, safely"),
    "export lerobot": Verb("exporting", "Export", "RUN OUT", "write a policy as a folder that LeRobot loads"),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return its exit status.

    0 done, 1 `check` found something, 2 user error, 3 storage, 4 run in use, 130 interrupted.
    """
    warnings.showwarning = _noted_once()
    try:
        return _dispatch(list(sys.argv[1:] if arguments is None else arguments))
    except Noise2ActionError as error:
        print(f"n2a: error: {' '.join(str(error).split())}", file=sys.stderr)  # noqa: T201
        return error.exit_code
    except KeyboardInterrupt:
        print("n2a: interrupted", file=sys.stderr)  # noqa: T201
        return 130
    except BrokenPipeError:
        return 141
    except OSError as error:
        print(f"n2a: error: {error}", file=sys.stderr)  # noqa: T201
        return 3


def _noted_once() -> Callable[..., None]:
    """Return what prints a warning as one line, the same one once, wherever it comes from."""
    seen: set[str] = set()

    def note(message: Warning | str, *_: object, **__: object) -> None:
        text = " ".join(str(message).split())
        if text not in seen:
            print(f"n2a: warning: {text}", file=sys.stderr)  # noqa: T201
        seen.add(text)

    return note


def _dispatch(arguments: list[str]) -> int:
    if not arguments or arguments[0] in ("-h", "--help", "help"):
        print(_help())  # noqa: T201
        return 0 if arguments else 2
    if arguments[0] == "--version":
        print(f"noise2action {__version__}")  # noqa: T201
        return 0
    groups = {verb.split()[0] for verb in VERBS if " " in verb}
    name = " ".join(arguments[:2]) if arguments[0] in groups else arguments[0]
    if arguments[0] in groups and arguments[1:] in ([], ["--help"], ["-h"]):
        print(_help())  # noqa: T201
        return 0 if len(arguments) > 1 else 2
    if name not in VERBS:
        return _fail(f"unknown command {name!r}; {did_you_mean(name, VERBS)}")
    verb = VERBS[name]
    module = import_module(f"{__package__}.commands.{verb.module}")
    args, rest = _parse(getattr(module, verb.arguments), name, verb, arguments[len(name.split()) :])
    if verb.overrides:
        return module.main(args, rest)
    if rest:
        return _fail(f"expected no further word, got {rest[0]!r}: n2a {name} {verb.usage}".rstrip())
    return module.main(args)


def _parse(cls: type, name: str, verb: Verb, arguments: list[str]) -> tuple[Any, list[str]]:
    """Return the options of a verb and what it does not know; tyro's boxed errors become one line."""
    import tyro  # noqa: PLC0415

    from .commands.options import check, refusal  # noqa: PLC0415

    usage = f"n2a {name} {verb.usage}".rstrip()
    check(cls, arguments, usage=usage, overrides=verb.overrides)
    shown = io.StringIO()
    try:
        with contextlib.redirect_stderr(shown):
            return tyro.cli(cls, prog=f"n2a {name}", args=arguments, return_unknown_args=True)
    except SystemExit as stop:
        if not stop.code:
            if verb.overrides:
                _help_on_overrides(arguments)
            raise
        text = re.sub(r"[─│╭╮╰╯━┃]+", " ", shown.getvalue())
        raise refusal(cls, arguments, " ".join(text.split()), command=f"n2a {name}", usage=usage) from None


def _help_on_overrides(arguments: list[str]) -> None:
    """Print the fields of the recipe, generated from the dataclasses, and the names that unions accept."""
    import tyro  # noqa: PLC0415

    from .commands.overrides import choices  # noqa: PLC0415
    from .recipes import RECIPES  # noqa: PLC0415
    from .recipes.experiment import Experiment  # noqa: PLC0415

    print("\noptions that take a name, and then have fields of their own:")  # noqa: T201
    for path, names in choices(Experiment).items():
        print(f"  --{path} {{{', '.join(names)}}}")  # noqa: T201
    recipe = next((word for word in arguments if word in RECIPES), next(iter(RECIPES)))
    print(f"\nfields, with the defaults of {recipe}:")  # noqa: T201
    with contextlib.suppress(SystemExit):
        parser: Callable[..., Any] = tyro.cli
        parser(
            tyro.conf.AvoidSubcommands[Experiment],
            prog=f"n2a train {recipe} --out RUN",
            default=RECIPES[recipe](),
            args=["--help"],
        )


def _help() -> str:
    width = max(len(f"{name} {verb.usage}") for name, verb in VERBS.items())
    lines = [f"  {f'{name} {verb.usage}'.strip():{width}}  {verb.summary}" for name, verb in VERBS.items()]
    return "\n".join(
        ["usage: n2a COMMAND ...", "", "Diffusion policies for robot control.", "", *lines, "", "n2a COMMAND --help"]
    )


def _fail(message: str) -> int:
    print(f"n2a: error: {message}", file=sys.stderr)  # noqa: T201
    return 2
