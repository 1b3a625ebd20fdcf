/// A value of a graph: an index that is never reused within a pass.
package struct ValueID: Hashable, Comparable, Sendable {
  package let index: Int32

  package init(index: Int32) { self.index = index }

  package static func < (left: ValueID, right: ValueID) -> Bool { left.index < right.index }
}

/// A node of a graph: an index that is never reused within a pass.
package struct NodeID: Hashable, Comparable, Sendable {
  package let index: Int32

  package init(index: Int32) { self.index = index }

  package static func < (left: NodeID, right: NodeID) -> Bool { left.index < right.index }
}

/// A constant of a model.
package struct ConstantID: Hashable, Comparable, Sendable {
  package let index: Int32

  package init(index: Int32) { self.index = index }

  package static func < (left: ConstantID, right: ConstantID) -> Bool { left.index < right.index }
}

/// Where a value comes from.
package enum Definition: Hashable, Sendable {
  /// The function's input with that position.
  case input(Int)
  /// The value at the start of the function's state with that position.
  case state(Int)
  case constant(ConstantID)
  /// A result of a node.
  case result(NodeID, Int)
}

/// Where a value is used.
package enum Use: Hashable, Sendable {
  /// Operand of a node.
  case operand(NodeID, Int)
  /// The function's output with that position.
  case output(Int)
  /// The new value of the function's state with that position.
  case update(Int)
}
