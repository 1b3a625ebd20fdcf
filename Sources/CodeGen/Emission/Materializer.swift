import Base
import IR
import Synchronization
import Tensors

/// Computes what is left of the recipes on constants, straight into the weights section of a bundle.
package struct Materializer {
  private let schedule: Schedule
  private let model: Model

  /// A materializer of the weights of a scheduled model.
  package init(_ schedule: Schedule, of model: Model) {
    self.schedule = schedule
    self.model = model
  }

  /// Writes all weights; each is computed in blocks of rows on all cores.
  ///
  /// - Parameters:
  ///   - file: the file of the bundle.
  ///   - base: where in the file the weights section begins.
  ///   - progress: receives the bytes written so far and the bytes of all.
  /// - Throws: `CompileError` of kind `.io` if the file refuses, or what an operator throws.
  package func write(
    to file: AtomicFile, at base: Int, progress: (@Sendable (_ done: Int, _ total: Int) -> Void)? = nil
  ) throws {
    let evaluators = model.functions.map { ConstantEvaluator(model, $0) }
    let done = Mutex(0)
    let total = schedule.weights.reduce(0) { $0 + $1.byteCount }
    for weight in schedule.weights {
      let start = base + weight.offset
      do {
        try evaluators[weight.function].stream(weight.value) { _, offset, bytes in
          try file.write(bytes, at: start + offset)
          let sum = done.withLock { sum in
            sum += bytes.count
            return sum
          }
          progress?(sum, total)
        }
      } catch let error as CompileError {
        throw error.located(.init(object: "constant '\(weight.name)'"))
      }
    }
  }
}
