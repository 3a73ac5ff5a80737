package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"packmill/internal/bound"
	"packmill/internal/deb"
	"packmill/internal/policy"
	"packmill/spool/upload"
)

// inspect looks into a binary package of an upload, so that its uploader hears at once what the
// archive would refuse later. It returns a sentence for each thing that is wrong.
func inspect(ctx context.Context, dir string, u *upload.Upload, f upload.File) ([]string, error) {
	file, _, err := upload.Open(dir, f.Name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	p, err := deb.Read(bound.Reader(ctx, file), f.Name, deb.Options{})
	var fault *deb.Refusal
	if errors.As(err, &fault) {
		return []string{fault.Error()}, nil
	}
	if err != nil {
		return nil, err
	}
	var texts []string
	say := func(format string, args ...any) { texts = append(texts, fmt.Sprintf(format, args...)) }
	if err := p.CheckName(f.Name); err != nil {
		say("%v", err)
	}
	if err := p.CheckFields(f.Name); err != nil {
		say("%v", err)
	}
	c := u.Changes
	if p.Source != c.Source || policy.CompareVersions(p.SourceVersion, c.SourceVersion) != 0 {
		say("%s is built from %s %s, but %s is of %s %s; build the upload again",
			f.Name, p.Source, p.SourceVersion, u.Name, c.Source, c.SourceVersion)
	}
	const few = 5
	tooNew, tooOld := 0, 0
	limit := time.Now().Add(24 * time.Hour).Unix()
	for _, e := range p.Contents {
		switch {
		case e.MTime > limit:
			if tooNew++; tooNew <= few {
				say("%s: its file %q is dated in the future; set the clock and build again", f.Name, e.Path)
			}
		case e.MTime < year1975:
			if tooOld++; tooOld <= few {
				say("%s: its file %q is dated before 1975; build again with a sane SOURCE_DATE_EPOCH", f.Name, e.Path)
			}
		}
	}
	return texts, nil
}

const year1975 = 157766400 // 1975-01-01 00:00:00 UTC
