package installability

import (
	"fmt"
	"strings"
)

// node is a key of dose's report, with a value or with children; a list's
// items are children without a key.
type node struct {
	key, value string
	children   []*node
}

// child returns the child of the key, or nil.
func (n *node) child(key string) *node {
	if n == nil {
		return nil
	}
	for _, c := range n.children {
		if c.key == key {
			return c
		}
	}
	return nil
}

// text returns the value of the child of the key, or "".
func (n *node) text(key string) string {
	if c := n.child(key); c != nil {
		return c.value
	}
	return ""
}

// items returns the children; a missing node has none.
func (n *node) items() []*node {
	if n == nil {
		return nil
	}
	return n.children
}

// readTree reads lines that are "key: value", "key:" or "-", nested by blanks
// before them. Lines of blanks only are skipped.
func readTree(lines []string) (*node, error) {
	type level struct {
		n      *node
		indent int
	}
	root := &node{}
	stack := []level{{root, -1}}
	for i, line := range lines {
		text := strings.TrimLeft(line, " ")
		if text == "" {
			continue
		}
		indent := len(line) - len(text)
		for stack[len(stack)-1].indent >= indent {
			stack = stack[:len(stack)-1]
		}
		n := &node{}
		if text != "-" {
			var ok bool
			if n.key, n.value, ok = strings.Cut(text, ":"); !ok {
				return nil, fmt.Errorf("%s: line %d of its report is %q", program, i+1, text)
			}
			n.value = strings.TrimSpace(n.value)
		}
		parent := stack[len(stack)-1].n
		parent.children = append(parent.children, n)
		stack = append(stack, level{n, indent})
	}
	return root, nil
}
