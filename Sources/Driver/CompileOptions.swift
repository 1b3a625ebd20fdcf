import Base
import CodeGen
import IR
import Tensors

/// What `mcc compile` writes.
package enum Artefact: String, Hashable, Sendable, CaseIterable {
  /// One self-contained executable.
  case exe
  /// A folder of C sources with a Makefile.
  case c
  /// The IR at the stage asked for.
  case mir
}

/// What the user asks of a compilation.
package struct CompileOptions: Sendable {
  package var frontend = FrontendOptions()
  package var artefact = Artefact.exe
  /// The file or folder to write; nil prints IR to standard output.
  package var output: String?
  /// A name of `TargetRegistry`, or `native`.
  package var target = "native"
  /// The language that kernels are printed in.
  package var kernels = KernelLanguage.c
  /// Compilations at a time.
  package var jobs = availableThreads
  /// A folder that keeps sources and objects.
  package var keep: String?
  /// The folder of the object cache; nil for the default one.
  package var cacheFolder: String?
  /// The last stage to run.
  package var lastStage = Stage.build
  /// A folder that receives the model after every stage.
  package var dumpFolder: String?

  /// Whether kernels that have no times of this machine are timed first.
  package var tunes = false
  /// Whether a quantization that is slower than a wider type is an error.
  package var refusesSlowTypes = false

  package init() {}

  /// Whether the output is a folder of sources.
  var writesSources: Bool { lastStage >= .emit && (artefact == .c || lastStage == .emit) }

  /// Checks that what is asked for can be written, before the work for it begins.
  ///
  /// - Throws: `CompileError` of kind `.create` if not.
  package func checkOutputs() throws {
    if let output {
      if writesSources {
        try OutputPath.check(folder: output, makesParents: true)
      } else {
        try OutputPath.check(file: output)
      }
    }
    for case let folder? in [keep, dumpFolder] { try OutputPath.check(folder: folder, makesParents: true) }
  }
}
