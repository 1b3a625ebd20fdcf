/// The finite field of `p^k` numbers: polynomials of a degree below `k` over the whole numbers modulo the prime `p`, modulo one
/// of degree `k` that has no divisors.
///
/// Number `i` of the field has the digits of `i` in base `p` as its coefficients, the lowest first; 0 is number 0.
package struct FiniteField: Sendable {
  package let order: Int
  package let characteristic: Int
  package let degree: Int
  /// The coefficients of what `x^degree` equals.
  private let reduction: [Int]

  /// The largest order.
  package static let largestOrder = 1 << 12

  /// The field of that order; nil if the order is no power of a prime, or too large.
  package init?(order: Int) {
    guard (2...Self.largestOrder).contains(order), let power = Self.primePower(order) else { return nil }
    self.order = order
    (characteristic, degree) = power
    let (p, k) = power
    let irreducible = (0..<order).lazy
      .map { Self.digits($0, p, count: k) + [1] }
      .first { !Self.hasDivisor($0, p) }
    guard let irreducible else { return nil }
    reduction = irreducible.dropLast().map { ($0 * (p - 1)) % p }
  }

  /// The prime and the exponent of a power of a prime; nil for other numbers.
  package static func primePower(_ number: Int) -> (prime: Int, exponent: Int)? {
    guard number >= 2 else { return nil }
    var prime = 2
    while prime * prime <= number, number % prime != 0 { prime += 1 }
    if number % prime != 0 { prime = number }
    var (rest, exponent) = (number, 0)
    while rest % prime == 0 { (rest, exponent) = (rest / prime, exponent + 1) }
    return rest == 1 ? (prime, exponent) : nil
  }

  private static func digits(_ number: Int, _ base: Int, count: Int) -> [Int] {
    var rest = number
    return (0..<count).map { _ in
      defer { rest /= base }
      return rest % base
    }
  }

  /// Whether a polynomial with a leading 1 has a divisor of at least degree 1 and at most half of its own.
  private static func hasDivisor(_ polynomial: [Int], _ p: Int) -> Bool {
    let degree = polynomial.count - 1
    guard degree > 1 else { return false }
    var count = 1
    for size in 1...degree / 2 {
      count *= p
      for low in 0..<count where remainderIsZero(polynomial, digits(low, p, count: size) + [1], p) { return true }
    }
    return false
  }

  private static func remainderIsZero(_ polynomial: [Int], _ divisor: [Int], _ p: Int) -> Bool {
    var rest = polynomial
    for place in (divisor.count - 1..<rest.count).reversed() where rest[place] != 0 {
      let factor = rest[place]
      for i in divisor.indices {
        let target = place - (divisor.count - 1) + i
        rest[target] = (rest[target] + (p - factor) * divisor[i]) % p
      }
    }
    return rest.allSatisfy { $0 == 0 }
  }

  /// `a - b`.
  package func difference(_ a: Int, _ b: Int) -> Int {
    var (a, b, place, result) = (a, b, 1, 0)
    while a > 0 || b > 0 {
      result += (a % characteristic + characteristic - b % characteristic) % characteristic * place
      (a, b, place) = (a / characteristic, b / characteristic, place * characteristic)
    }
    return result
  }

  /// `a * b`.
  package func product(_ a: Int, _ b: Int) -> Int {
    let (p, k) = (characteristic, degree)
    let (left, right) = (Self.digits(a, p, count: k), Self.digits(b, p, count: k))
    var sum = [Int](repeating: 0, count: 2 * k - 1)
    for i in 0..<k { for j in 0..<k { sum[i + j] = (sum[i + j] + left[i] * right[j]) % p } }
    for place in (k..<max(k, sum.count)).reversed() {
      for i in 0..<k { sum[place - k + i] = (sum[place - k + i] + sum[place] * reduction[i]) % p }
    }
    return (0..<k).reversed().reduce(0) { $0 * p + sum[$1] }
  }

  /// The quadratic character of every number: 0 of 0, 1 of squares, -1 of all others.
  package var quadraticCharacter: [Int8] {
    var result = [Int8](repeating: -1, count: order)
    result[0] = 0
    for number in 1..<order { result[product(number, number)] = 1 }
    return result
  }
}
