# What bash is for: each call of `round SEED` prints one line that depends on the seed alone.
declare -A seen

fib() { (($1 < 2)) && echo "$1" || echo $(($(fib $(($1 - 1))) + $(fib $(($1 - 2))))); }

words() { # text work: patterns, substitution, arrays, sorting in a pipeline
    local -a all=()
    local i word
    for ((i = 0; i < 300; i++)); do
        printf -v word 'w%03d' $((($1 * 37 + i * i) % 211))
        all+=("${word/0/zero}")
        seen[$word]=$((${seen[$word]:-0} + 1))
    done
    printf '%s\n' "${all[@]}" | sort -u | while read -r word; do
        [[ $word =~ ^w(zero)?([0-9]+)$ ]] && echo "${BASH_REMATCH[2]}"
    done | tr '\n' ,
}

letters() { # here-documents, case, brace expansion, reading
    local line text=
    while IFS=: read -r first rest; do
        case $rest in
        *even) text+=${first^^} ;;
        *) text+=${first:1} ;;
        esac
    done <<END
$(for i in {1..20}; do ((i % 2)) && echo "a$i:odd" || echo "b$i:even"; done)
END
    echo "$text"
}

numbers() { # arithmetic, loops, a trap in a subshell
    local i sum=0
    for ((i = 1; i < 4000; i++)); do ((sum = (sum * 31 + i ^ $1) & 0xffffff)); done
    (
        trap 'echo -n "left "' EXIT
        exit 3
    )
    echo "$? $sum"
}

round() {
    seen=()
    local -a result=("$1" "$(words "$1")" "$(letters)" "$(numbers "$1")" "$(fib $((6 + $1 % 3)))")
    echo "${result[*]} ${#seen[@]} $(/bin/echo external)"
}
echo READY
