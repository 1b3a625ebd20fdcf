/// What is known of a weight that takes a format of its own: the material of the scores of ``AllocateBits``.
///
/// `W[N, K]` are the numbers of the weight, `D` their change by rounding to nearest, `H` the sum of `x x^T` over the
/// inputs of its layer on the samples; experts have an `H` each, of the rows that are routed to them. A table that is
/// only gathered from has `H = 1`.
package struct LayerStatistics: Hashable, Sendable {
  /// What a format does to the weight.
  package struct Rounding: Hashable, Sendable {
    package var bytes: Int
    /// `tr(D H D^T)`.
    package var error: Double
    /// `tr(D D^T)`.
    package var squares: Double

    package init(bytes: Int, error: Double, squares: Double) {
      self.bytes = bytes
      self.error = error
      self.squares = squares
    }
  }

  package var name: String
  /// Rows and columns as stored, the rows of all experts together.
  package var rows: Int
  package var columns: Int
  /// One for each format, in their order.
  package var roundings: [Rounding] = []
  /// `tr(W H W^T)` and `tr(W W^T)`.
  package var energy = 0.0
  package var norm = 0.0
  /// Of the numbers of the weight: the standard deviation, the largest less the smallest, and the share that lies more
  /// than a deviation above the mean.
  package var deviation = 0.0
  package var range = 0.0
  package var outliers = 0.0
  /// The mean of the diagonal of `H`; 1 without inputs.
  package var trace = 1.0
  /// The entropy of the distribution of the inputs in bits, over 256 equal steps of their range; without inputs that of
  /// the weight's own numbers.
  package var entropy = 0.0
  /// One less the mean cosine of what the block of the layer adds to before and after; nil outside of blocks with a
  /// residual.
  package var turn: Double?
  /// The share of the weight that a token is multiplied by: that of the routed experts; 1 for all else.
  package var usage = 1.0

  package init(name: String, rows: Int, columns: Int) {
    self.name = name
    self.rows = rows
    self.columns = columns
  }

  /// The numbers of the weight.
  package var count: Int { rows * columns }

  /// The bits of a number in a format, scales included.
  package func bits(_ option: Int) -> Double { Double(8 * roundings[option].bytes) / Double(max(1, count)) }
}
