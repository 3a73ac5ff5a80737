package complete

// Scripts are what shells source, by the shell's name. They ask the program itself, so they know
// the items of the moment.
var Scripts = map[string]string{
	"bash": `_packmill() {
	local IFS=$'\n'
	COMPREPLY=($(packmill complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null))
}
complete -F _packmill packmill
`,
	"zsh": `#compdef packmill
_packmill() {
	local -a found=("${(@f)$(packmill complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)}")
	compadd -- ${found:#}
}
if [[ ${funcstack[1]} = _packmill ]]; then _packmill; else compdef _packmill packmill; fi
`,
	"fish": `complete -c packmill -f -a '(packmill complete -- (commandline -opc)[2..-1] (commandline -ct) 2>/dev/null)'
`,
}
