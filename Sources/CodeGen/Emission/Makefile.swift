/// The Makefile of the folder that `--emit c` writes.
enum Makefile {
  /// A Makefile that compiles `sources` and `runtime` with the system's C compiler and appends the bundle.
  static func text(
    program: String, sources: [GeneratedSources.File], runtime: [GeneratedSources.File], targets: [Target]
  ) -> String {
    func objects(_ names: [String]) -> String {
      var text = ""
      var column = 80
      for name in names.sorted() {
        let object = name.prefix { $0 != "." } + ".o"
        if column + object.count > 100 {
          text += " \\\n "
          column = 2
        }
        text += " " + object
        column += object.count + 1
      }
      return text
    }
    var groups: [(name: String, flags: [String], files: [String])] = []
    for file in sources {
      if let index = groups.firstIndex(where: { $0.flags == file.flags }) {
        groups[index].files.append(file.name)
      } else {
        // Of several targets each has its own files; model.c is for all of them.
        groups.append(("MODEL" + (groups.isEmpty ? "" : "_\(groups.count)"), file.flags, [file.name]))
      }
    }
    groups.append(("RUNTIME", runtime.first?.flags ?? [], runtime.map(\.name)))
    let all = groups.map { "$(\($0.name))" }.joined(separator: " ")
    var lists = "", rules = ""
    for group in groups {
      let isSwift = group.files.contains { $0.hasSuffix(".swift") }
      lists += "\(group.name)_FLAGS = \(group.flags.joined(separator: " "))\n\(group.name) =\(objects(group.files))\n\n"
      rules +=
        isSwift
        ? """
        $(\(group.name)): %.o: %.swift %.h
        \t$(SWIFTC) $(\(group.name)_FLAGS) -module-name $* -import-objc-header $*.h -c $< -o $@


        """
        : "$(\(group.name)): %.o: %.c\n\t$(CC) $(\(group.name)_FLAGS) $(CFLAGS) -c $< -o $@\n\n"
    }
    let hasSwift = sources.contains { $0.name.hasSuffix(".swift") }
    let cross = targets.lazy.compactMap(\.architecture).first.map { " On another machine: CC=\($0.triple)-gcc." } ?? ""
    return """
      # make: compiles the program and appends its data, with any C11 compiler\(hasSwift ? " and Swift" : "").\(cross)
      PROGRAM = \(program)
      CC ?= cc
      CFLAGS ?=
      \(hasSwift ? "SWIFTC ?= swiftc\n" : "")
      # The code of the model, for the processors it was compiled for; the runtime is for any of the architecture.
      \(lists)$(PROGRAM): \(all) bundle.bin
      \t$(CC) $(CFLAGS) \(all) -o $@.part -lm -lpthread
      \ttruncate -s %\(Bundle.page) $@.part
      \tcat bundle.bin >> $@.part
      \tmv $@.part $@

      \(rules)clean:
      \trm -f \(all) $(PROGRAM) $(PROGRAM).part

      .PHONY: clean

      """
  }
}
