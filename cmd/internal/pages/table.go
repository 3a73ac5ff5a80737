package pages

import "packmill/cmd/internal/desk"

// pages are all of them. It is a function, for one of them lists them.
func pages() []page {
	return []page{
		{path: "/{$}", template: "start", what: "what is where, what needs a person, what moved", object: Start{},
			find: (*Site).start},
		{path: "/list", template: "list", what: "items by state, suite and arch", object: List{}, find: (*Site).list,
			query: []string{"state", "suite", "arch", "from"}},
		{path: "/suite/{suite}", template: "suite", what: "a suite", object: Suite{}, find: (*Site).suite},
		{path: "/suite/{suite}/{arch}", template: "arch", what: "an architecture of a suite", object: Arch{},
			find: (*Site).arch},
		{path: "/package/{source}", template: "package", what: "a source package", object: Package{},
			find: (*Site).packagePage},
		{path: "/build/{suite}/{arch}/{id}/{start}", template: "build", what: "a build with its log", object: Build{},
			find: (*Site).build, printed: true, query: []string{"from"}},
		{path: "/review", template: "review", what: "what waits for a reviewer", object: Review{},
			find: (*Site).review, heavy: true},
		{path: "/review/{suite}/{item}", template: "reviewed", what: "what an upload changes", object: desk.Report{},
			find: (*Site).reviewed, heavy: true},
		{path: "/upload/{changes}", template: "upload", what: "where an upload is", object: Upload{}, find: (*Site).upload},
		{path: "/builders", template: "builders", what: "who builds", object: Builders{}, find: (*Site).buildersPage},
		{path: "/archive", template: "archive", what: "the suites and snapshots", object: Archive{}, find: (*Site).archive},
		{path: "/archive/{view...}", template: "archiveview", what: "the packages of a suite or snapshot, or its cruft",
			object: ArchiveView{}, find: (*Site).archiveView, heavy: true, query: []string{"q", "cruft"}},
		{path: "/diff", template: "diff", what: "what changed between two suites or snapshots", object: ArchiveDiff{},
			find: (*Site).archiveDiff, heavy: true, query: []string{"from", "to"}},
		{path: "/search", template: "search", what: "packages by a part of their name", object: Search{},
			find: (*Site).search, query: []string{"q"}},
		{path: "/maintainers", template: "maintainers", what: "who maintains and uploads packages", object: Maintainers{},
			find: (*Site).maintainers, heavy: true, query: []string{"from"}},
		{path: "/maintainer/{who}", template: "maintainer", what: "the packages of a maintainer or uploader",
			object: Maintainer{}, find: (*Site).maintainer, heavy: true, query: []string{"from"}},
		{path: "/statistics", template: "statistics", what: "what builds came to", object: Statistics{},
			find: (*Site).statistics, query: []string{"days"}},
		{path: "/states", template: "states", what: "what the words for states mean", object: States{}, find: (*Site).states},
		{path: "/schema", template: "schema", what: "this list", object: Schema{}, find: (*Site).schema},
	}
}
