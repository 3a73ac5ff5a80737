package pages

import (
	"bytes"

	"packmill/internal/pattern"
)

// address is a mail address in HTML or in JSON, with the brackets around it. In HTML + and ' are
// references by number.
var address = pattern.Lazy(`( ?(?:&lt;|\\u003c))?(?:[\pL\pM\pN._%+'-]|&#(?:39|43);)+@(?:[\pL\pM\pN-]+\.)+` +
	`(?:xn--[A-Za-z0-9-]+|[\pL\pM]{2,})(?:&gt;|\\u003e)?`)

// discreet takes mail addresses out of what is sent, unless the settings show them. What
// builds printed is not asked for any.
func (s *Site) discreet(text []byte) []byte {
	if s.view.Settings().General.ShowAddresses || bytes.IndexByte(text, '@') < 0 {
		return text
	}
	return address().ReplaceAllFunc(text, func(found []byte) []byte {
		if c := found[0]; c == ' ' || c == '\\' || bytes.HasPrefix(found, []byte("&lt;")) {
			return nil
		}
		return []byte("(address)")
	})
}
