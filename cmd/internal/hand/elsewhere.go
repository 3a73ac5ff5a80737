package hand

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"packmill/archive"
	"packmill/archive/mirror"
	"packmill/archive/push"
	"packmill/cmd/internal/daemon"
	"packmill/internal/openpgp"
)

// Repository opens another repository, which one of the keys in these files must have signed.
func (h *Hand) Repository(src mirror.Source, keyrings []string) (*mirror.Repository, error) {
	if len(keyrings) == 0 && !src.Unsigned {
		return nil, daemon.Wrong{Err: errors.New("say with --keyring which keys sign the repository, or --unsigned")}
	}
	var keys [][]byte
	for _, n := range keyrings {
		data, err := os.ReadFile(n)
		if err != nil {
			return nil, err
		}
		keys = append(keys, data)
	}
	if len(keys) > 0 {
		var err error
		if src.Keyring, err = openpgp.ReadKeyring(keys...); err != nil {
			return nil, daemon.Wrong{Err: err}
		}
	}
	repo, err := mirror.Open(h.Ctx, src, time.Now())
	refusal, broken := (*openpgp.Refusal)(nil), mirror.ErrBroken{}
	switch {
	case errors.As(err, &refusal) && refusal.Kind == openpgp.UnknownKey:
		return nil, daemon.Refuse("%s %s is signed by the key %s, which is in none of the files of --keyring",
			src.URL, src.Suite, refusal.KeyID)
	case refusal != nil, errors.As(err, &broken):
		return nil, fmt.Errorf("%w: %w", daemon.ErrRefused, err)
	}
	return repo, Missing(err)
}

// Destination is where a push goes: what rsync understands, or s3://BUCKET/PREFIX in the store, whose keys the
// environment has.
func Destination(target string, options []string, store push.S3) (archive.Destination, error) {
	rest, ok := strings.CutPrefix(target, "s3://")
	if !ok {
		return &push.Rsync{Dest: target, Args: options}, nil
	}
	if store.Endpoint == "" {
		return nil, daemon.Wrong{Err: errors.New("say with --s3-url where the store is")}
	}
	bucket, prefix, _ := strings.Cut(rest, "/")
	store.Bucket, store.Prefix = bucket, strings.Trim(prefix, "/")
	store.Credentials = push.Credentials{Access: os.Getenv("AWS_ACCESS_KEY_ID"),
		Secret: os.Getenv("AWS_SECRET_ACCESS_KEY"), Token: os.Getenv("AWS_SESSION_TOKEN")}
	return &store, nil
}

// Override changes a package where it is published, and for its later versions in the suite's Override file.
func (h *Hand) Override(suite, name string, o archive.Override, dry bool) (*archive.Plan, error) {
	s, err := h.Suite(suite)
	if err != nil {
		return nil, err
	}
	if o == (archive.Override{}) {
		return nil, daemon.Wrong{Err: errors.New("nothing to change: use --section or --priority")}
	}
	for _, v := range []string{o.Section, o.Priority} {
		if strings.ContainsAny(v, " \t\n,") {
			return nil, daemon.Wrong{Err: fmt.Errorf("%q is not one word", v)}
		}
	}
	plan, err := h.Archive.Override(h.Ctx, s, name, o, archive.ChangeOptions{Dry: dry}, time.Now())
	if err != nil || dry || len(plan.Refused) > 0 {
		return plan, err
	}
	if set, _ := h.Settings.Suite(suite); set.Override != "" {
		return plan, archive.WriteOverride(h.Settings.Path(set.Override), name, o)
	}
	plan.Notes = append(plan.Notes, "the next version brings its own values again: the suite has no Override file.")
	return plan, nil
}
