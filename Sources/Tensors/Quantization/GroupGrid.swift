/// Sixteen rows at a time.
typealias Lanes = SIMD16<Float>

/// Adding and subtracting 1.5 * 2^23 rounds numbers below 2^22 to the nearest integers, ties to even.
@inline(__always)
func roundedToEven(_ value: Lanes) -> Lanes { (value + 0x1.8p23) - 0x1.8p23 }

@inline(__always)
func clamped(_ value: Lanes, _ low: Float, _ high: Float) -> Lanes {
  let above = value.replacing(with: Lanes(repeating: low), where: value .< low)
  return above.replacing(with: Lanes(repeating: high), where: above .> high)
}

/// The numbers that the codes of a group may stand for, `(u - zero) * scale` with whole `u` in `low...high`, and the
/// scales and zero points to choose from for numbers of a given range. Of a table, and of floats, `u` are the levels,
/// and `zero` is 0.
struct GroupGrid {
  let format: BlockFormat
  /// The table that `u` are from.
  private let levels: CodeLevels?
  private let isFloat8: Bool
  /// What the number of largest magnitude is multiplied by for the scales of a table.
  private let factors: [Float]
  /// The least and the largest code; codes of eight bits count from 0.
  let low: Float
  let high: Float
  /// The code of value 0 where groups have no zero point of their own.
  let middle: Float

  init(_ format: BlockFormat) {
    self.format = format
    levels = format.levels
    isFloat8 = format.codes == .float8
    factors = format.levels.map { format.scaleFactors($0) } ?? []
    let center = Float(format.middleCode)
    if let levels = format.levels {
      (low, high, middle) = (levels.ascending[0], levels.ascending[levels.ascending.count - 1], 0)
    } else if isFloat8 {
      (low, high, middle) = (-448, 448, 0)
    } else if format.bits == 8 {
      (low, high, middle) = (-127, 127, 0)
    } else if format.codes == .ternary {
      (low, high, middle) = (center - 1, center + 1, center)
    } else {
      (low, high, middle) = (0, Float(format.largestCode), center)
    }
  }

  /// Scales and zero points of sixteen groups.
  struct Choice {
    var scale: Lanes
    var zero: Lanes

    /// One over the scale, 0 for 0.
    var inverse: Lanes {
      (1 / scale).replacing(with: Lanes.zero, where: scale .== 0)
    }
  }

  /// The nearest `u` of sixteen numbers.
  @inline(__always)
  func codes(_ values: Lanes, _ choice: Choice, _ inverse: Lanes) -> Lanes {
    if let levels { return levels.nearest(values * inverse) }
    let place = clamped(values * inverse + choice.zero, low, high)
    return isFloat8 ? Self.float8(place) : roundedToEven(place)
  }

  /// The nearest `u` of a number counted in scales from the zero point.
  func nearest(_ place: Float) -> Float {
    if let levels { return levels.nearest(place) }
    let bounded = min(max(place, low), high)
    return isFloat8 ? F8.e4m3Value(F8.e4m3Bits(bounded)) : bounded.rounded(.toNearestOrEven)
  }

  private static func float8(_ values: Lanes) -> Lanes {
    var result = values
    for lane in result.indices { result[lane] = F8.e4m3Value(F8.e4m3Bits(values[lane])) }
    return result
  }

  /// By how many scales a number has to be away from its `u` for another one to be nearer, at least.
  var leastMove: Float { isFloat8 ? 0 : 0.501 }

  /// The code of a `u` as blocks have it.
  func code(of u: Float) -> UInt8 {
    if let levels { return levels.code(of: u) }
    return isFloat8 ? F8.e4m3Bits(u) : UInt8(truncatingIfNeeded: Int(u))
  }

  /// What is known of sixteen groups of numbers.
  struct Extent {
    /// At most 0, and at least 0.
    var least = Lanes.zero
    var greatest = Lanes.zero
    var magnitudes = Lanes.zero

    @inline(__always)
    mutating func add(_ values: Lanes) {
      least.replace(with: values, where: values .< least)
      greatest.replace(with: values, where: values .> greatest)
      magnitudes += values.replacing(with: 0 - values, where: values .< 0)
    }
  }

  /// How many choices there are; the first is that of rounding to nearest.
  var choiceCount: Int {
    switch format.codes {
    case .zeroPoint: Self.shrinks * Self.shrinks
    case .ternary: 24
    case .signed: format.bits == 8 ? 10 : 1 + 2 * Self.steps
    case .levels: factors.count
    case .float8: 10
    }
  }

  private static let shrinks = 8
  private static let steps = 24

  /// The choice `index` for groups of `count` numbers.
  func choice(_ index: Int, _ extent: Extent, count: Int) -> Choice {
    var scale: Lanes
    var zero = Lanes(repeating: middle)
    let isLow = 0 - extent.least .> extent.greatest
    let largest = extent.greatest.replacing(with: extent.least, where: isLow)
    switch format.codes {
    case .zeroPoint:
      let (i, j) = index.quotientAndRemainder(dividingBy: Self.shrinks)
      let least = extent.least * (1 - 0.06 * Float(i)), greatest = extent.greatest * (1 - 0.06 * Float(j))
      scale = rounded(greatest / high - least / high)
      let place = roundedToEven(clamped((0 - least) / scale, 0, high))
      zero = place.replacing(with: Lanes.zero, where: scale .== 0)
    case .ternary:
      let magnitude = largest.replacing(with: 0 - largest, where: largest .< 0)
      scale = rounded(index == 0 ? extent.magnitudes / Float(count) : magnitude * (0.04 * Float(index)))
    case .signed where format.bits == 8, .float8:
      let magnitude = largest.replacing(with: 0 - largest, where: largest .< 0)
      scale = rounded(magnitude / high * (1 - 0.02 * Float(index)))
    case .levels:
      let base = format.hasSignedScales ? largest : largest.replacing(with: 0 - largest, where: largest .< 0)
      scale = rounded(base * factors[index])
    case .signed:
      // The number of largest magnitude at the end with one code more, or at the other.
      let step = (index - 1) / 2
      let share = index == 0 ? 1 : 0.52 + 0.65 * Float(step) / Float(Self.steps - 1)
      scale = rounded(largest / (index == 0 || index % 2 == 1 ? -middle : middle) * share)
    }
    return Choice(scale: scale, zero: zero)
  }

  /// Scales as they are stored.
  func rounded(_ scales: Lanes) -> Lanes {
    var result = scales
    for lane in result.indices { result[lane] = rounded(result[lane]) }
    return result
  }

  /// A scale as it is stored.
  func rounded(_ scale: Float) -> Float { format.rounded(scale: scale) }
}
