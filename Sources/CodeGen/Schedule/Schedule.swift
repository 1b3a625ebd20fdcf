import IR
import Tensors

/// A lowered model as a program: for each function linear steps over places in memory.
///
/// Memory is two blocks: the weights section of the bundle (read only) and the arena, which holds the states, then inputs
/// and outputs (at the same place in every function that has one of that name), then the buffers of whichever function
/// runs.
package struct Schedule: Sendable {
  /// A constant of the weights section.
  package struct Weight: Sendable {
    package var name: String
    package var type: TensorType
    package var offset: Int
    package var byteCount: Int
    /// Where its recipe stands.
    package var function: Int
    package var value: ValueID
  }

  /// A tensor that keeps its contents from call to call.
  package struct State: Sendable {
    package var name: String
    package var type: TensorType
    /// In the arena.
    package var offset: Int
    /// Whether a token adds a row.
    package var isCache = true
  }

  /// What a buffer is for.
  package enum Role: Hashable, Sendable {
    case input, output, temporary
  }

  /// A tensor in the arena during one call of a function.
  package struct Buffer: Sendable {
    package var name: String
    package var type: TensorType
    package var role: Role
    /// In the arena.
    package var offset: Int
    package var byteCount: Int
    /// The step that fills it (-1: the caller) and the last one that reads it.
    package var live: ClosedRange<Int>
    /// Where the node that computes it was in the imported model.
    package var origin: Origin?
  }

  /// What a kernel gets for one of its C parameters.
  package enum Argument: Hashable, Sendable {
    case weight(Int)
    case state(Int, offset: Dim)
    /// A buffer from an offset in bytes on.
    case buffer(Int, offset: Dim)
    case size(Dim)
  }

  /// A call of a kernel.
  package struct Step: Sendable {
    /// The index among the kernels.
    package var kernel: Int
    package var arguments: [Argument]
    /// Which of the arguments the call writes.
    package var writes: Set<Int>
    /// The input argument whose memory the result may take over, with the argument of the result.
    package var inPlace: [(input: Int, result: Int)]
    /// Whether all threads must have finished what came before.
    package var barrier: Bool
    /// The name of the result.
    package var name: String
    package var origin: Origin?
    package var work = StepWork()
  }

  /// Steps that are the same but for the weights and states they use.
  package struct Loop: Hashable, Sendable {
    package var start: Int
    /// Steps of one round.
    package var period: Int
    package var count: Int

    package init(start: Int, period: Int, count: Int) {
      self.start = start
      self.period = period
      self.count = count
    }

    /// All steps of all rounds.
    package var steps: Range<Int> { start..<start + period * count }
  }

  /// A function of the program.
  package struct Function: Sendable {
    package var name: String
    package var role: String
    /// The index of the target whose kernels it calls.
    package var level: Int
    package var symbols: [Symbol]
    package var steps: [Step] = []
    package var loops: [Loop] = []
    package var buffers: [Buffer] = []
    /// Buffers of the inputs and outputs in order, with their names.
    package var inputs: [(name: String, buffer: Int)] = []
    package var outputs: [(name: String, buffer: Int)] = []
    /// Bytes of the buffers that are neither inputs nor outputs.
    package var temporaryBytes = 0
  }

  package var kernels: [KernelFunction] = []
  /// For each kernel the index of the target it is written for.
  package var kernelLevels: [Int] = []
  package var weights: [Weight] = []
  package var states: [State] = []
  package var functions: [Function] = []
  /// Bytes of the weights section.
  package var weightsBytes = 0
  /// Bytes of the states, at the start of the arena.
  package var stateBytes = 0
  package var arenaBytes = 0

  /// Bytes of one row of every cache, which a decoded token adds; nil without states.
  package var cacheBytesPerToken: Int? {
    states.isEmpty
      ? nil
      : states.filter(\.isCache).reduce(0) { sum, state in
        guard let rows = state.type.shape.dims.first?.fixedValue, rows > 0 else { return sum }
        return sum + (state.type.byteCount ?? 0) / rows
      }
  }

  /// Bytes of the states that do not grow with the tokens.
  package var fixedStateBytes: Int {
    states.filter { !$0.isCache }.reduce(0) { $0 + ($1.type.byteCount ?? 0) }
  }
}

extension Int {
  /// The next multiple of `alignment`.
  func aligned(to alignment: Int) -> Int { (self + alignment - 1) / alignment * alignment }
}
