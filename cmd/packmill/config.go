package main

import (
	"os"

	"packmill/cmd/internal/terminal"
)

type configCmd struct {
	Check configCheck `cmd:"" help:"Say what is wrong with the settings: file, line and cure."`
	Show  configShow  `cmd:"" help:"Print the settings that are in force, with the defaults of what nobody wrote."`
}

func (configCmd) Help() string {
	return `The files of control, as the daemons read them. What is legal there and cannot work is packmill doctor's to find.

Exit status: 0 the daemons take them, 100 they do not, and go on with the last good ones.

Examples:
  packmill config check
  packmill config show suites       what nobody wrote stands there as a comment
  packmill config show --json`
}

type configCheck struct{}

func (configCheck) Run(c *cli) error {
	if _, err := c.control(); err != nil {
		return err
	}
	if !c.JSON {
		terminal.Print(os.Stdout, "the settings are right\n")
	}
	return nil
}

type configShow struct {
	File string `arg:"" optional:"" enum:"suites,uploaders,builders,notify,general," default:"" help:"One file alone: suites, uploaders, builders, notify or general."`
}

func (configShow) isPaged() {}

func (x *configShow) Run(c *cli) error {
	s, err := c.control()
	if err != nil {
		return err
	}
	last := ""
	for i := range s.Stanzas {
		st := &s.Stanzas[i]
		if x.File != "" && x.File != st.File {
			continue
		}
		if last != st.File && !c.JSON {
			terminal.Print(os.Stdout, "# ---- %s\n", st.File)
		}
		last = st.File
		c.print(os.Stdout, st, st.String())
	}
	return nil
}
