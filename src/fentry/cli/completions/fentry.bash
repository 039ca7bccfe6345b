# What can be typed next on the command line of fentry, for bash: `fentry completion bash`.
# The command itself is asked (fentry/cli/candidates.py); a line of its answer is KIND, VALUE and
# what that is, with tabs between.

_fentry() {
    local typed=${COMP_WORDS[COMP_CWORD]} kind value meaning IFS=$'\n'
    local words="${COMP_WORDS[*]:0:COMP_CWORD}" values=() shown=()
    COMPREPLY=()
    while IFS=$'\t' read -r kind value meaning; do
        case $kind in
        word)
            values+=("$value")
            shown+=("$value${meaning:+  ($meaning)}")
            ;;
        file) compopt -o default 2>/dev/null ;;
        command) COMPREPLY=($(compgen -c -- "$typed")) ;;
        esac
    done < <(_FENTRY_WORDS=$words _FENTRY_TYPED=$typed "${1/#\~/$HOME}" 2>/dev/null)

    # What a word means is shown where several are listed, never where one is inserted:
    # 37 is menu-complete, 42 insert-completions (bash(1), COMP_TYPE).
    if ((${#values[@]} == 1 || COMP_TYPE == 37 || COMP_TYPE == 42)); then
        COMPREPLY=("${values[@]}")
    elif ((${#values[@]})); then
        local width=$((${COLUMNS:-80} - 1)) line
        for line in "${shown[@]}"; do COMPREPLY+=("${line:0:width}"); done
    fi
}

complete -o nosort -F _fentry fentry 2>/dev/null || complete -F _fentry fentry
