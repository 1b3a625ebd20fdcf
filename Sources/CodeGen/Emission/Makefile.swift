/// The Makefile of the folder that `--emit c` writes.
enum Makefile {
  /// A Makefile that compiles `sources` and `runtime` with the system's C compiler and appends the bundle.
  static func text(program: String, sources: [String], runtime: [String], target: Target) -> String {
    func objects(_ names: [String]) -> String {
      var text = ""
      var column = 80
      for name in names.sorted() {
        let object = name.dropLast(2) + ".o"
        if column + object.count > 100 {
          text += " \\\n "
          column = 2
        }
        text += " " + object
        column += object.count + 1
      }
      return text
    }
    return """
      # make: compiles the program and appends its data, with any C11 compiler.
      PROGRAM = \(program)
      CC ?= cc
      CFLAGS ?=
      # The code of the model, for the processor it was compiled for; the runtime is for any of the architecture.
      MODEL_FLAGS = -std=gnu11 -O3 \(target.compilerFlags.joined(separator: " "))
      RUNTIME_FLAGS = -std=gnu11 -O2

      MODEL =\(objects(sources))
      RUNTIME =\(objects(runtime))

      $(PROGRAM): $(MODEL) $(RUNTIME) bundle.bin
      \t$(CC) $(CFLAGS) $(MODEL) $(RUNTIME) -o $@.part -lm -lpthread
      \ttruncate -s %4096 $@.part
      \tcat bundle.bin >> $@.part
      \tmv $@.part $@

      $(MODEL): %.o: %.c
      \t$(CC) $(MODEL_FLAGS) $(CFLAGS) -c $< -o $@

      $(RUNTIME): %.o: %.c
      \t$(CC) $(RUNTIME_FLAGS) $(CFLAGS) -c $< -o $@

      clean:
      \trm -f $(MODEL) $(RUNTIME) $(PROGRAM) $(PROGRAM).part

      .PHONY: clean

      """
  }
}
