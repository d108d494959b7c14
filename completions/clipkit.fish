# Completion of clipkit for fish. Made by: clipkit completion fish
function __clipkit_complete
    set -l words (commandline -opc) (commandline -ct)
    set -lx _CLIPKIT_COMPLETE 1
    $words[1] $words[2..-1] 2>/dev/null
end
complete -c clipkit -n 'test (count (commandline -opc)) -eq 1' -f
complete -c clipkit -k -a '(__clipkit_complete)'
