"""The scripts that complete t2aux's command line in bash and zsh.

Ready libraries do not fit: argcomplete starts Python at every Tab and needs argparse, and what
shtab 1.13 writes for bash completes no --flag=value, which is how all of our help writes flags.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

import t2aux
from t2aux.cli.commands import FILE, FOLDER, Command, Flag

_LONGEST_ABOUT = 80

_BASH = r"""# Completion of t2aux @VERSION@ for bash 3.2 or later, by `t2aux completion bash`.

# Sets flags, arguments (values, "file" or "folder") of a command.
_t2aux_command() {
    case "$1" in
@COMMANDS@
    esac
}

# Sets values and kind of a flag of a command; fails where it takes no value.
_t2aux_flag() {
    case "$1 $2" in
@FLAGS@
        *) return 1 ;;
    esac
}

# Completes a word with one of several, and a space after it.
_t2aux_words() {
    local word
    for word in $(compgen -W "$2" -- "$3"); do
        case "$word" in
            *=) COMPREPLY+=("$1$word") ;;
            *) COMPREPLY+=("$1$word ") ;;
        esac
    done
}

# Completes a path, "file" or "folder".
_t2aux_path() {
    local word action=-f
    if [[ $2 == folder ]]; then action=-d; fi
    while IFS= read -r word; do
        COMPREPLY+=("$1$word")
    done < <(compgen "$action" -- "$3")
    # Spaces in names are escaped, and one follows a file. Bash 3.2 has no compopt.
    if type compopt > /dev/null 2>&1; then compopt -o filenames +o nospace 2> /dev/null; fi
}

_t2aux() {
    local current="${COMP_WORDS[COMP_CWORD]}" previous="" before=""
    local command="${COMP_WORDS[1]}" flag="" value="" prefix=""
    local flags="" arguments="" values="" kind=""
    COMPREPLY=()
    if ((COMP_CWORD == 1)); then
        _t2aux_words "" "@NAMES@ --help --version" "$current"
        return
    fi
    previous="${COMP_WORDS[COMP_CWORD - 1]}"
    before="${COMP_WORDS[COMP_CWORD - 2]}"
    # Bash divides --flag=value into three words, unless COMP_WORDBREAKS has no "=".
    if [[ $current == "=" && $previous == --* ]]; then
        flag="$previous"
    elif [[ $previous == "=" && $before == --* ]]; then
        flag="$before" value="$current"
    elif [[ $current == --*=* ]]; then
        flag="${current%%=*}" value="${current#*=}" prefix="${current%%=*}="
    elif [[ $previous == --* && $current != -* ]] && _t2aux_flag "$command" "$previous"; then
        flag="$previous" value="$current"
    fi
    if [[ -n $flag ]]; then
        _t2aux_flag "$command" "$flag" || return
        _t2aux_words "$prefix" "$values" "$value"
        if [[ ${#COMPREPLY[@]} -eq 0 && -n $kind ]]; then
            _t2aux_path "$prefix" "$kind" "$value"
        fi
        return
    fi
    _t2aux_command "$command"
    if [[ $current == -* ]]; then
        _t2aux_words "" "$flags --help" "$current"
    elif [[ $arguments == file || $arguments == folder ]]; then
        _t2aux_path "" "$arguments" "$current"
    else
        _t2aux_words "" "$arguments" "$current"
    fi
}

complete -o nospace -o bashdefault -o default -F _t2aux t2aux
"""

_ZSH = r"""#compdef t2aux
# Completion of t2aux @VERSION@ for zsh, printed by `t2aux completion zsh`.

_t2aux_gin_files() {
    compadd -- @GIN_FILES@
    _files -g '*.gin'
}

_t2aux() {
    local -a commands
    commands=(
@NAMES@
    )
    if (( CURRENT == 2 )); then
        _describe -t commands command commands -- '(--help --version)'
        return
    fi
    local command=$words[2]
    shift words
    (( CURRENT-- ))
    case $command in
@COMMANDS@
    esac
}

if [[ $funcstack[1] == _t2aux ]]; then
    _t2aux "$@"
else
    compdef _t2aux t2aux
fi
"""


def bash(commands: Sequence[Command]) -> str:
    """The script for bash."""
    described, with_values = [], []
    for command in commands:
        words = [word for flag in command.flags for word in _forms(flag)]
        arguments = command.kind or " ".join(command.values)
        described.append(f"        {command.name}) flags={_list(words)} arguments='{arguments}' ;;")
        with_values += [
            f"        '{command.name} --{flag.name}') "
            f"values={_list(flag.values)} kind='{flag.kind or ''}' ;;"
            for flag in command.flags
            if not flag.is_boolean
        ]
    return _filled(
        _BASH,
        COMMANDS=described,
        FLAGS=with_values,
        NAMES=[" ".join(command.name for command in commands)],
    )


def zsh(commands: Sequence[Command]) -> str:
    """The script for zsh."""
    names = [
        "        " + shlex.quote(f"{_escaped(command.name)}:{command.about}")
        for command in commands
    ]
    described = []
    gin_files: tuple[str, ...] = ()
    for command in commands:
        specs = []
        for flag in command.flags:
            specs.append(_zsh_flag(flag))
            gin_files = flag.values if flag.name == "gin_file" else gin_files
        specs.append("'(- *)--help[tell more of the command]'")
        action = _zsh_action(command.values, command.kind)
        if action:
            specs.append(shlex.quote(f"*:argument:{action}"))
        lines = " \\\n".join(f"                {spec}" for spec in specs)
        described.append(
            f"        {command.name})\n            _arguments \\\n{lines}\n            ;;"
        )
    return _filled(
        _ZSH, COMMANDS=described, NAMES=names, GIN_FILES=[" ".join(map(shlex.quote, gin_files))]
    )


def _forms(flag: Flag) -> list[str]:
    """How a flag begins on a command line."""
    return [f"--{flag.name}", f"--no{flag.name}"] if flag.is_boolean else [f"--{flag.name}="]


def _zsh_flag(flag: Flag) -> str:
    """A flag as zsh's _arguments takes it."""
    about = flag.about
    if len(about) > _LONGEST_ABOUT:
        about = about[:_LONGEST_ABOUT].rpartition(" ")[0] + " ..."
    about = f"[{_escaped(about)}]"
    if flag.is_boolean:
        both = " ".join(_forms(flag))
        return " ".join(shlex.quote(f"({both}){form}{about}") for form in _forms(flag))
    action = _zsh_action(flag.values, flag.kind)
    if flag.name == "gin_file":
        action = "_t2aux_gin_files"
    repeated = "*" if flag.is_repeatable else ""
    return shlex.quote(f"{repeated}--{flag.name}={about}:{flag.name}:{action}")


def _zsh_action(values: Iterable[str], kind: str | None) -> str:
    """What completes a value or an argument: a list, a function, or nothing."""
    if values:
        return f"({' '.join(map(_escaped, values))})"
    return {FILE: "_files", FOLDER: "_files -/"}.get(kind or "", "")


def _escaped(text: str) -> str:
    """Text without what means something to _arguments and _describe."""
    return "".join(f"\\{c}" if c in "\\[]:()" else c for c in text)


def _list(words: Iterable[str]) -> str:
    return shlex.quote(" ".join(words))


def _filled(template: str, **parts: Sequence[str]) -> str:
    text = template.replace("@VERSION@", t2aux.__version__)
    for name, lines in parts.items():
        text = text.replace(f"@{name}@", "\n".join(lines))
    return text
