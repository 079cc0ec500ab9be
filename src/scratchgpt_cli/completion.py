"""`scratchgpt completion`: commands, builders, configurations and options, read from the commands' own help."""

import contextlib
import io
import re

from .commands import TOOLS, configurations, main, scripts

SCRIPT = """\
# For bash and zsh. Made by `scratchgpt completion`; make it again after an update.
if [[ -n ${{ZSH_VERSION-}} ]]; then
    autoload -U +X compinit && compinit
    autoload -U +X bashcompinit && bashcompinit
fi
_scratchgpt() {{
    local words="" first=1 i current="${{COMP_WORDS[COMP_CWORD]}}"
    if (( COMP_CWORD == 1 )); then
        words="{commands}"
    elif [[ ${{COMP_WORDS[1]}} == data ]] && (( COMP_CWORD == 2 )); then
        words="{builders}"
    else
        [[ ${{COMP_WORDS[1]}} == data ]] && first=2
        if [[ ${{COMP_WORDS[1]}} == launch ]]; then  # the recipe stands behind accelerate's options
            for (( i = 2; i < COMP_CWORD; i++ )); do
                case " {recipes} " in *" ${{COMP_WORDS[i]}} "*) first=$i; break ;; esac
            done
        fi
        case "${{COMP_WORDS[first]}}" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "$current"))
}}
complete -o default -F _scratchgpt scratchgpt
"""


def script() -> str:
    """Takes some seconds, since the help of every command is asked for: keep what it returns in a file."""
    recipes, builders = scripts("recipes"), scripts("data_builders")
    words = {name: options([name]) for name in (*recipes, *TOOLS) if name != "data"}
    for name, file in recipes.items():
        words[name] += [key.split("/")[1] for key in configurations() if key.startswith(f"{file.stem}/")]
    words["launch"] += recipes
    words["configs"] += ["copy", *configurations()]
    words |= {name: options(["data", name]) for name in builders}
    cases = [f'            {name}) words="{" ".join(each)}" ;;' for name, each in words.items()]
    commands = " ".join((*recipes, *TOOLS))
    return SCRIPT.format(
        commands=commands, recipes=" ".join(recipes), builders=" ".join(builders), cases="\n".join(cases)
    )


def options(command: list[str]) -> list[str]:
    """The options that `command` says it has."""
    shown = io.StringIO()
    with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
        main([*command, "--help"])
    return sorted(set(re.findall(r"^  (?:-\w, )?(--\w+)", shown.getvalue(), re.MULTILINE)))
