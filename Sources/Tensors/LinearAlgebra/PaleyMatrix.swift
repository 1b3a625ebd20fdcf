/// A Hadamard matrix of an order that is no power of two: `order` rows of 1 and -1, any two of which are orthogonal
/// (Paley, "On orthogonal matrices", 1933).
///
/// With the quadratic character `c` of the field of `q` numbers and `Q[a, b] = c(a - b)`:
/// - order `q + 1` for `q = 3` modulo 4: `I + [[0, 1], [-1, Q]]`;
/// - order `2 (q + 1)` for `q = 1` modulo 4: `C (x) [[1, 1], [1, -1]] + I (x) [[1, -1], [-1, -1]]`, `C = [[0, 1], [1, Q]]`.
package struct PaleyMatrix: Sendable {
  package let order: Int
  /// The numbers, row by row.
  package let signs: [Int8]

  /// The matrix of that order; nil if neither construction gives one.
  package init?(order: Int) {
    guard let q = Self.fieldOrder(for: order), let field = FiniteField(order: q) else { return nil }
    self.order = order
    let character = field.quadraticCharacter
    /// The border of ones around Q; the ones below have the sign `lower`.
    func bordered(_ row: Int, _ column: Int, lower: Int8) -> Int8 {
      if row == 0 { return column == 0 ? 0 : 1 }
      if column == 0 { return lower }
      return character[field.difference(row - 1, column - 1)]
    }
    var signs = [Int8](repeating: 0, count: order * order)
    if order == q + 1 {
      for row in 0..<order {
        for column in 0..<order {
          signs[row * order + column] = row == column ? 1 : bordered(row, column, lower: -1)
        }
      }
    } else {
      for row in 0...q {
        for column in 0...q {
          let sign = bordered(row, column, lower: 1)
          let square: [Int8] = row == column ? [1, -1, -1, -1] : [sign, sign, sign, -sign]
          for (place, value) in square.enumerated() {
            signs[(2 * row + place / 2) * order + 2 * column + place % 2] = value
          }
        }
      }
    }
    self.signs = signs
  }

  /// Whether there is a matrix of that order.
  package static func exists(order: Int) -> Bool { fieldOrder(for: order) != nil }

  /// The order of the field that gives the matrix.
  private static func fieldOrder(for order: Int) -> Int? {
    guard order >= 4, order % 4 == 0, order <= FiniteField.largestOrder else { return nil }
    if (order - 1) % 4 == 3, FiniteField.primePower(order - 1) != nil { return order - 1 }
    let half = order / 2 - 1
    return half % 4 == 1 && FiniteField.primePower(half) != nil ? half : nil
  }
}
