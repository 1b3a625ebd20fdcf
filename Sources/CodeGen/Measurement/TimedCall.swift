import Tensors

/// A call of a kernel to be timed, with memory of the sizes that it reads and writes.
package struct TimedCall: Sendable {
  /// What stands for a parameter of the kernel.
  package enum Argument: Hashable, Sendable {
    /// A constant: copies of it take turns, so that it comes from where it would come from in a run.
    case constant(bytes: Int)
    /// Another operand that is read, always at the same place.
    case operand(bytes: Int)
    /// Memory that is written.
    case result(bytes: Int)
    /// Integers of one value.
    case integers(Int, count: Int, wide: Bool)
    case size(Int)
  }

  package var function: KernelFunction
  package var arguments: [Argument]
  package var threads: Int
  /// Calls of one group are timed in turn.
  package var group: Int

  package init(_ function: KernelFunction, _ arguments: [Argument], threads: Int, group: Int) {
    self.function = function
    self.arguments = arguments
    self.threads = threads
    self.group = group
  }

  /// Bytes of one copy of all constants.
  var constantBytes: Int {
    arguments.reduce(0) { if case .constant(let bytes) = $1 { $0 + bytes.aligned(to: 64) } else { $0 } }
  }
}

/// Seconds of one call.
package struct CallTime: Hashable, Sendable {
  /// Of every round; in one round calls of a group follow each other.
  package var rounds: [Double]

  package init(rounds: [Double]) { self.rounds = rounds }

  package var least: Double { rounds.min() ?? 0 }
  package var median: Double { Self.median(rounds) }

  /// How many times as long as another call of its group it takes: by the fastest rounds or by the median of the ratios
  /// within rounds, whichever says less, as what disturbs the machine makes either too large.
  package func ratio(to other: CallTime) -> Double {
    let paired = zip(rounds, other.rounds).map { $1 > 0 ? $0 / $1 : 1 }
    return min(other.least > 0 ? least / other.least : 1, Self.median(paired))
  }

  private static func median(_ values: [Double]) -> Double {
    values.isEmpty ? 0 : values.sorted()[values.count / 2]
  }
}
