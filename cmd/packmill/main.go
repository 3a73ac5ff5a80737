// Command packmill manages a tree of packages: it makes one, shows what is
// where and why, lets reviewers decide, and puts back what was mended.
//
//	packmill setup
//	packmill uploader add NAME SSHKEY... | remove NAME | ls
//	packmill init
//	packmill status | ls | show ITEM
//	packmill review [ls | show ITEM | accept ITEM... | reject ITEM... | hold ITEM... | ask ITEM...]
//	packmill wb CMD PKG[_VERSION]... . ARCH... [. SUITE] [. -m TEXT]
//	packmill build [ls | show | sign | fail | retry | dep-wait | giveback | not-for-us] ITEM...
//	packmill mail [--maildir DIR]
//	packmill cancel PACKAGE[_VERSION] ARCH
//	packmill why PACKAGE
//	packmill wait PACKAGE
//	packmill rebuild --check PACKAGE
//	packmill log [-f] PACKAGE [ARCH] | log ls [PACKAGE] | log grep PATTERN
//	packmill quinn-diff [SUITE]
//	packmill requeue ITEM...
//	packmill backup
//	packmill fsck
//	packmill doctor
//	packmill config check | show [FILE]
//	packmill completion bash | zsh | fish
//	packmill chroot create SUITE ARCH | update | ls | rm SUITE ARCH
//	packmill builder add NAME KEY.pub ARCH... | ls | rm NAME | pause NAME | drain NAME | resume NAME
//	packmill key new NAME
//	packmill archive [ls | show | include | copy | move | rm | override | diff] ...
//	packmill archive [snapshot | rollback | gc | check | import | export | push | serve] ...
//
// ITEM is a package (hello), a version of it (hello_2.10-3) or an item's whole
// name. Every change goes through the one table of moves and is written into
// the item's history with the name of the person who made it, which the system
// tells. What it does can be done with mv as well.
//
// Exit status: 0 done, 1 refused (nothing fits, or the table forbids it), 100
// wrong use or settings, 111 may pass (try again). packmill mail: 0 taken, 75
// may pass (the mail system tries again). packmill log -f ends as the build did:
// 0 built, 2 it failed, 3 it waits for dependencies, 4 without a verdict; packmill
// wait: 0 published, 1 refused or replaced, 2 a build failed, 4 the time is over.
package main

import (
	"cmp"
	"os"
	"reflect"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"packmill/cmd/internal/daemon"
	"packmill/cmd/internal/terminal"
	"packmill/cmd/internal/usage"
	"packmill/queue/logs"
	"packmill/queue/runner"
)

const manual = `Shows what is where in a tree, and lets people decide.

Examples:
  packmill init                                 make a tree, with settings to fill in
  packmill status                               how much is in each state
  packmill ls hello                             where hello is
  packmill review                               what waits for a reviewer
  packmill review accept hello -m "looks good"
  packmill requeue hello_2.10-3                 try again`

// cli is the grammar. Each group of commands lies in a file of its own.
type cli struct {
	Tree   string `help:"The tree." default:"/var/lib/packmill" env:"PACKMILL_TREE" placeholder:"DIR" type:"path"`
	JSON   bool   `name:"json" help:"Print JSON, one object a line."`
	DryRun bool   `short:"n" help:"Say what would be done, and do nothing."`

	Pager bool `help:"Show what is long through a pager on a terminal (PACKMILL_PAGER, PAGER, or less)." default:"true" negatable:""`

	Version kong.VersionFlag `help:"Print the version."`

	Screen *terminal.Screen `kong:"-"`
	noted  bool             // that something is closed

	commands `kong:"-"` // which grammar gives to kong
}

// commands are what packmill does, in the order in which its help names them.
type commands struct {
	Setup    setupCmd    `cmd:"" help:"Make a server of this machine."`
	Uploader uploaderCmd `cmd:"" help:"Accounts for people who upload."`

	Init    initCmd      `cmd:"" help:"Make a tree, or complete one."`
	Status  statusCmd    `cmd:"" help:"Show how much is in each state."`
	Ls      lsCmd        `cmd:"" help:"Show what is where."`
	Show    showCmd      `cmd:"" help:"Show an item: its facts, its history, why it lies where it lies."`
	Review  reviewCmd    `cmd:"" help:"The reviewer's desk."`
	Wb      wbCmd        `cmd:"" help:"Operations on build jobs, in the words of Debian's wb."`
	Build   buildCmd     `cmd:"" help:"What a person says of builds: sign, fail, retry, and so on."`
	Mail    mailCmd      `cmd:"" help:"Take signed replies to build logs."`
	Cancel  cancelCmd    `cmd:"" help:"End a build, or take a job that waits out of the queue."`
	Why     whyCmd       `cmd:"" help:"Say why a package is where it is, and what must happen next."`
	Wait    waitCmd      `cmd:"" help:"Wait until a package is published, or is not going to be."`
	Rebuild rebuildCmd   `cmd:"" help:"Build a published package again and compare the bits."`
	Log     logCmd       `cmd:"" help:"Print, follow and search the logs of builds."`
	Quinn   quinnDiffCmd `cmd:"" name:"quinn-diff" help:"Print what the archive lacks."`
	Requeue requeueCmd   `cmd:"" help:"Put items back to where they are tried again."`
	Backup  backupCmd    `cmd:"" help:"Copy the tree while everything runs."`
	Fsck    fsckCmd      `cmd:"" help:"Check that the tree keeps its promises."`
	Doctor  doctorCmd    `cmd:"" help:"Look a server over: what is wrong with it, and the cure."`
	Config  configCmd    `cmd:"" help:"The settings: what is wrong with them, and what is in force."`
	Chroot  chrootCmd    `cmd:"" help:"The chroots that builds run in."`
	Builder builderCmd   `cmd:"" help:"Builders on other machines."`
	Key     keyCmd       `cmd:"" help:"Keys of the archive and its builders."`
	Archive archiveCmd   `cmd:"" help:"The archive by hand: look, copy, remove, snapshots, mirrors."`

	Completion completionCmd   `cmd:"" help:"Print a completion script for a shell."`
	Complete   completeCmd     `cmd:"" hidden:""`
	Serve      serveBuilderCmd `cmd:"" name:"serve-builder" hidden:""`
	Manual     manualCmd       `cmd:"" hidden:""`
}

// grammar is the parser of a command line with that command: of the others it knows only that they are there, for what
// they all take costs more time than a short command. "": of all commands.
func grammar(c *cli, only string) (*kong.Kong, error) {
	options := []kong.Option{kong.Name("packmill"), kong.Description(manual), kong.UsageOnError(),
		kong.Vars{"logstates": strings.Join(logs.Words(), ", "), "version": daemon.Version("packmill")},
		buildHelp(), kong.BindToProvider(c.hand),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 100})}
	for f, v := range reflect.ValueOf(&c.commands).Elem().Fields() {
		var tags []string
		if _, hidden := f.Tag.Lookup("hidden"); hidden {
			tags = append(tags, `hidden:""`)
		}
		command := v.Addr().Interface()
		if name := nameOf(f); only != "" && name != only {
			command = &struct{}{}
		}
		options = append(options, kong.DynamicCommand(nameOf(f), f.Tag.Get("help"), "", command, tags...))
	}
	return kong.New(c, options...)
}

// nameOf is how a command is called.
func nameOf(f reflect.StructField) string { return cmp.Or(f.Tag.Get("name"), strings.ToLower(f.Name)) }

// parse reads a command line: with the grammar of the first word that names a command or, where that is not the
// command or something is wrong, with the whole.
func (c *cli) parse(args []string) (*kong.Context, error) {
	isCommand := func(word string) bool {
		return slices.ContainsFunc(reflect.VisibleFields(reflect.TypeFor[commands]()), func(f reflect.StructField) bool {
			return nameOf(f) == word
		})
	}
	for i, word := range args {
		if !isCommand(word) || i > 0 && args[i-1] == "--tree" {
			continue
		}
		parser, err := grammar(c, word)
		if err != nil {
			panic(err) // a fault of the program, found by its first test
		}
		ctx, err := parser.Parse(args)
		if err == nil && strings.Fields(ctx.Command())[0] == word {
			return ctx, nil
		}
		break
	}
	*c = cli{}
	parser, err := grammar(c, "")
	if err != nil {
		panic(err)
	}
	return parser.Parse(args)
}

func main() {
	runner.Reexec()
	os.Exit(run(os.Args[1:]))
}

// run is the command, and gives its exit status.
func run(args []string) int {
	var c cli
	ctx, err := c.parse(args)
	if err != nil {
		status := daemon.ExitWrong
		if slices.Contains(args, "mail") {
			status = tempFail // a wrong line in a .forward loses no mail
		}
		c.JSON = c.JSON || slices.Contains(args, "--json")
		return c.tellError(usage.Of(err), status)
	}
	c.screen() // what it is before a pager comes between
	_, long := ctx.Selected().Target.Addr().Interface().(interface{ isPaged() })
	if long && c.Pager && !c.JSON && !c.live(ctx) {
		leave := terminal.Page()
		defer leave()
	}
	return c.end(ctx.Run(&c))
}

// live reports whether the output goes on as things happen: it wants no pager.
func (c *cli) live(ctx *kong.Context) bool {
	for _, f := range ctx.Flags() {
		if f.Name == "watch" || f.Name == "follow" {
			if on, ok := f.Target.Interface().(bool); ok && on {
				return true
			}
		}
	}
	return false
}
