import Base
import CodeGen
import IR

/// How much a model takes in a program.
package enum ProgramSize {
  /// The bytes of the weights with scales as the kernels of the targets read them, and of the tokenizer, for a model of
  /// the stage `transform`; nothing is computed of the weights.
  ///
  /// - Throws: `CompileError` if the model has something that the targets have no kernel for, or the tokenizer cannot
  ///   be written.
  package static func bytes(_ model: Model, _ generator: CodeGenerator) throws -> Int {
    var model = model
    model.stage = .lower
    var context = PassContext()
    try generator.lower(&model, &context)
    let tokenizer = try model.tokenizer.map { try TokenizerSection.encode($0).count } ?? 0
    return try generator.schedule(model).weightsBytes + tokenizer
  }
}
