package mail

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"packmill/internal/openpgp"
	"packmill/internal/paper"
	"packmill/internal/pattern"
	"packmill/internal/policy"
	"packmill/queue"
	"packmill/spool/upload"
)

// Word is what a person says about a build. They are the words that Debian's
// buildd takes.
type Word string

// The words.
const (
	Sign       Word = "sign" // said with a signed .changes
	Fail       Word = "fail"
	Retry      Word = "retry"
	DepWait    Word = "dep-wait"
	GiveBack   Word = "giveback"
	Manual     Word = "manual"
	NotForUs   Word = "not-for-us"
	NewVers    Word = "newvers"
	Purge      Word = "purge"
	UploadRem  Word = "upload-rem" // of what is on its way to the archive, unlike all others
	maxText         = 16 << 10     // bytes of what is said
	maxQuoted       = 3            // lines by which a mail program introduces what it quotes
	jobPrefix       = "Job: "
	quoteSign       = ">"
	signatory       = "--" // the line over a mail's signature
	nothingIn       = "it says nothing: the first word must be one of "
	keepTheJob      = "the signed text must hold the line that begins with " + jobPrefix +
		"as the log's mail has it, quoted or not: it says which build is meant"
)

// wordOf is the word in package queue's table: nil if it is none of mail's.
func wordOf(w Word) *queue.Word { return queue.WordAt(queue.ByMail, string(w)) }

// Job names one build of a job, as the line Job of its log's mail does.
type Job struct {
	Mark  string // see queue.Ticket
	ID    string // SOURCE_VERSION
	Arch  string
	Suite string
}

func (j Job) String() string {
	return fmt.Sprintf("%s%s %s %s %s", jobPrefix, j.Mark, strings.ReplaceAll(j.ID, ":", "%3a"), j.Arch, j.Suite)
}

// jobLine finds the line in a text of which the signs of quotation were taken
// away; a mail program may have broken it.
var jobLine = pattern.Lazy(`(?:^|\s)Job:\s+([0-9a-f]{20})\s+(\S+)\s+(\S+)\s+(\S+)`)

// Reply is what a signed text says.
type Reply struct {
	Word    Word
	Text    string          // what follows the word
	Job     Job             // without Mark where a signed .changes names the build itself
	Changes *upload.Changes // of Sign
}

// ParseReply reads what a person has signed: a .changes, or a word, what it
// wants, and the line that says which build is meant. Lines that quote another
// mail are passed over. Its errors are sentences for the person.
func ParseReply(text []byte) (*Reply, error) {
	lines := strings.Split(string(text), "\n")
	said := unquoted(lines)
	first := slices.IndexFunc(said, func(l string) bool { return strings.TrimSpace(l) != "" })
	if first < 0 {
		return nil, errors.New(nothingIn + wordList())
	}
	if strings.HasPrefix(said[first], "Format:") {
		return parseChanges(text)
	}
	word, rest, _ := strings.Cut(strings.TrimSpace(said[first]), " ")
	r := &Reply{Word: Word(strings.ToLower(word))}
	if wordOf(r.Word) == nil || r.Word == Sign {
		return nil, fmt.Errorf("%.40q is not a word that is known here; the first word must be one of %s", word, wordList())
	}
	body := append([]string{strings.TrimSpace(rest)}, said[first+1:]...)
	if i := slices.IndexFunc(body, func(l string) bool { return strings.TrimRight(l, " ") == signatory }); i >= 0 {
		body = body[:i]
	}
	r.Text = strings.TrimSpace(jobLine().ReplaceAllString(strings.Join(body, "\n"), ""))
	if len(r.Text) > maxText {
		return nil, fmt.Errorf("the text after %s is longer than %d bytes", r.Word, maxText)
	}
	switch {
	case r.Word == Fail && r.Text == "":
		return nil, errors.New("say why it failed, after the word fail")
	case r.Word == DepWait:
		r.Text = strings.Join(strings.Fields(r.Text), " ")
		if _, err := queue.WaitRelations(r.Text); err != nil {
			return nil, fmt.Errorf("dep-wait: %w", err)
		}
	}
	var err error
	r.Job, err = findJob(lines)
	return r, err
}

func wordList() string {
	var out []string
	for _, w := range queue.WordsAt(queue.ByMail) {
		if Word(w.Name) != Sign {
			out = append(out, w.Name)
		}
	}
	return strings.Join(out, ", ") + ", or the text is the signed .changes"
}

// findJob looks for the one build that a text names, quoted or not.
func findJob(lines []string) (Job, error) {
	bare := make([]string, len(lines))
	for i, l := range lines {
		bare[i] = strings.TrimLeft(l, "> \t")
	}
	var found []Job
	for _, m := range jobLine().FindAllStringSubmatch(strings.Join(bare, "\n"), -1) {
		j := Job{m[1], strings.ReplaceAll(m[2], "%3a", ":"), m[3], m[4]}
		source, version, ok := strings.Cut(j.ID, "_")
		if !ok || policy.CheckSource(source) != nil || policy.CheckVersion(version) != nil ||
			policy.CheckArch(j.Arch) != nil || policy.CheckSuite(j.Suite) != nil {
			continue
		}
		if !slices.Contains(found, j) {
			found = append(found, j)
		}
	}
	switch len(found) {
	case 0:
		return Job{}, errors.New(keepTheJob)
	case 1:
		return found[0], nil
	}
	return Job{}, errors.New("the signed text names more than one build; answer each in a mail of its own")
}

// unquoted leaves out the lines that quote another mail and those that a mail
// program puts above them ("On Monday Ann wrote:").
func unquoted(lines []string) []string {
	var out []string
	for _, l := range lines {
		if !strings.HasPrefix(l, quoteSign) {
			out = append(out, l)
			continue
		}
		// Take back the introduction, up to the empty line before it.
		n := len(out)
		for n > 0 && strings.TrimSpace(out[n-1]) == "" {
			n--
		}
		if n == 0 || !strings.HasSuffix(strings.TrimSpace(out[n-1]), ":") {
			continue
		}
		from := n
		for from > 0 && strings.TrimSpace(out[from-1]) != "" {
			from--
		}
		if n-from <= maxQuoted && !slices.ContainsFunc(out[from:n], saysWord) {
			out = out[:from]
		}
	}
	return out
}

// saysWord reports whether a line begins with one of the words.
func saysWord(line string) bool {
	word, _, _ := strings.Cut(strings.TrimSpace(line), " ")
	return wordOf(Word(strings.ToLower(word))) != nil
}

// parseChanges reads a signed .changes; the job is the one that it was built
// for.
func parseChanges(text []byte) (*Reply, error) {
	c, err := upload.ParseChanges("the signed .changes", text)
	if err != nil {
		return nil, err
	}
	if len(c.Architectures) != 1 {
		return nil, fmt.Errorf("the signed .changes is for %s; what a builder made is for one architecture",
			strings.Join(c.Architectures, " "))
	}
	return &Reply{Word: Sign, Changes: c,
		Job: Job{ID: c.Source + "_" + c.SourceVersion, Arch: c.Architectures[0], Suite: c.Distribution}}, nil
}

// same says why a signed .changes is not the one that a build made: only the
// signature may be new.
func same(built, signed []byte) error {
	signed, err := openpgp.ClearText(signed)
	if err != nil {
		return queue.Refusal(err.Error())
	}
	if openpgp.CanonicalHash(paper.Text(built)) == openpgp.CanonicalHash(signed) {
		return nil
	}
	return queue.Refusal("the signed text is not the .changes that this build made: sign that one, " +
		"and change nothing in it (gpg --clearsign; debsign changes the .buildinfo too)")
}
