/// A step of a kernel. With `Expression` this is the whole language.
package indirect enum Statement: Hashable, Sendable {
  case comment(String)
  /// A local value; a mutable one may be assigned again.
  case declare(String, Expression, isMutable: Bool)
  case assign(String, ValueType, Expression)
  /// An uninitialised local array, aligned for vector loads.
  case array(Pointer, count: Int)
  /// A pointer `count` elements behind another one, seen as elements of the new pointer's type.
  case derive(Pointer, from: Pointer, offset: Expression)
  /// Writes a scalar, or a vector to consecutive elements (only the first `count` lanes if given). Converts f32 to f16 and
  /// bf16 (round to nearest even) and narrows i32 to i8 and u8 (values must be in range).
  case store(Pointer, Expression, Expression, count: Expression?)
  /// Counts the variable from `from` up to but not including `to`.
  case loop(String, from: Expression, to: Expression, step: Int, [Statement])
  case condition(Expression, [Statement], [Statement])
  /// Hints that the cache line holding the element will be read.
  case prefetch(Pointer, Expression)
  /// Binds `begin` and `end` to the calling thread's share of 0..<units. Shares are contiguous and depend only on units,
  /// thread index and thread count.
  case partition(begin: String, end: String, units: Expression)
  /// Runs the body for units of 0..<units, bound to the variable: each by one thread, contiguous ones of the thread's share
  /// first, then what slower threads have not begun.
  case share(String, units: Expression, [Statement])
  /// Waits until all threads are here; what each wrote before is then visible to all. Every thread must come by as often.
  case meet
}

/// The operand that a kernel mostly reads: its share of `units` units of `unitBytes` bytes, one after the other.
package struct WeightStream: Hashable, Sendable {
  /// Of the parameter.
  package var name: String
  package var units: Int
  package var unitBytes: Int
}

/// A parameter of a kernel. Every kernel's first C parameter is `const mcc_thread *t`; then these in order.
package enum Parameter: Hashable, Sendable {
  case pointer(Pointer)
  /// A run-time dimension or position, `int64_t` in C.
  case symbol(String)

  package var name: String {
    switch self {
    case .pointer(let pointer): pointer.name
    case .symbol(let name): name
    }
  }
}

/// One specialised kernel: a C function `void name(const mcc_thread *t, parameters...)`.
package struct KernelFunction: Hashable, Sendable {
  package var name: String
  /// What it computes and the shapes of its buffers, one line per element.
  package var comment: [String]
  package var parameters: [Parameter]
  package var body: [Statement]
  /// What waiting threads may read ahead.
  package var stream: WeightStream?

  package init(
    name: String, comment: [String], parameters: [Parameter], body: [Statement], stream: WeightStream? = nil
  ) {
    self.name = name
    self.comment = comment
    self.parameters = parameters
    self.body = body
    self.stream = stream
  }
}
