# What can be typed next on the command line of fentry, for fish: `fentry completion fish`.
# The command itself is asked (fentry/cli/candidates.py); a line of its answer is KIND, VALUE and
# what that is, with tabs between.

function __fentry_candidates
    set -l words (commandline -opc)
    set -l typed (commandline -ct)
    set -lx _FENTRY_WORDS (string join -- \n $words | string collect)
    set -lx _FENTRY_TYPED $typed
    for line in ($words[1] 2>/dev/null)
        set -l parts (string split -- \t $line)
        switch $parts[1]
            case word
                printf '%s\t%s\n' $parts[2] "$parts[3]"
            case file
                __fish_complete_path $typed
            case command
                complete -C "$typed"
        end
    end
end

complete --command fentry --no-files --keep-order --arguments '(__fentry_candidates)'
