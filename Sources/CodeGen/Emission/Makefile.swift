/// The Makefile of the folder that `--emit c` writes.
enum Makefile {
  /// A Makefile that compiles `sources` and `runtime` with the system's C compiler and appends the bundle.
  static func text(program: String, sources: [String], runtime: [String], target: Target) -> String {
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
    let swift = sources.filter { $0.hasSuffix(".swift") }
    let all = swift.isEmpty ? "$(MODEL)" : "$(MODEL) $(KERNELS)"
    let c = sources.filter { !$0.hasSuffix(".swift") }
    return """
      # make: compiles the program and appends its data, with any C11 compiler\(swift.isEmpty ? "" : " and Swift").
      PROGRAM = \(program)
      CC ?= cc
      CFLAGS ?=
      # The code of the model, for the processor it was compiled for; the runtime is for any of the architecture.
      MODEL_FLAGS = -std=gnu11 -O3 \(target.compilerFlags.joined(separator: " "))
      RUNTIME_FLAGS = -std=gnu11 -O2

      \(swift.isEmpty ? "" : """
      SWIFTC ?= swiftc
      SWIFT_FLAGS = \(SwiftRenderer.compilerFlags(target: target).joined(separator: " "))

      KERNELS =\(objects(swift))

      """)MODEL =\(objects(c))
      RUNTIME =\(objects(runtime))

      $(PROGRAM): \(all) $(RUNTIME) bundle.bin
      \t$(CC) $(CFLAGS) \(all) $(RUNTIME) -o $@.part -lm -lpthread
      \ttruncate -s %4096 $@.part
      \tcat bundle.bin >> $@.part
      \tmv $@.part $@

      $(MODEL): %.o: %.c
      \t$(CC) $(MODEL_FLAGS) $(CFLAGS) -c $< -o $@

      $(RUNTIME): %.o: %.c
      \t$(CC) $(RUNTIME_FLAGS) $(CFLAGS) -c $< -o $@

      \(swift.isEmpty ? "" : """
      $(KERNELS): %.o: %.swift %.h
      \t$(SWIFTC) $(SWIFT_FLAGS) -module-name $* -import-objc-header $*.h -c $< -o $@


      """)clean:
      \trm -f \(all) $(RUNTIME) $(PROGRAM) $(PROGRAM).part

      .PHONY: clean

      """
  }
}
