import Base
import Glibc

/// Labelled points in a plane, drawn as SVG 1.1.
struct ScatterPlot {
  struct Point {
    var label: String
    var x: Double
    var y: Double
  }

  var title: String
  var x: String
  var y: String
  /// Whether the axis of `y` has equal steps for equal ratios; all numbers are above zero then.
  var isLogarithmic: Bool
  var points: [Point]

  private static let width = 720.0, height = 480.0
  private static let left = 90.0, right = 110.0, top = 40.0, bottom = 60.0

  /// The drawing; axes alone without points.
  var svg: String {
    let xs = Axis(points.map(\.x), isLogarithmic: false), ys = Axis(points.map(\.y), isLogarithmic: isLogarithmic)
    func across(_ value: Double) -> Double { Self.left + xs.place(value) * (Self.width - Self.left - Self.right) }
    func down(_ value: Double) -> Double {
      Self.height - Self.bottom - ys.place(value) * (Self.height - Self.top - Self.bottom)
    }
    func number(_ value: Double) -> String { Quantity.decimal(value, 1) }
    let (width, height) = (number(Self.width), number(Self.height))
    var lines = [
      "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"\(width)\" height=\"\(height)\" "
        + "viewBox=\"0 0 \(width) \(height)\" font-family=\"sans-serif\" font-size=\"12\">",
      "<rect width=\"100%\" height=\"100%\" fill=\"white\"/>",
      text(title, Self.width / 2, 24, anchor: "middle"),
      text(x, (Self.left + Self.width - Self.right) / 2, Self.height - 14, anchor: "middle"),
      "<g transform=\"rotate(-90 20 \(number(Self.height / 2)))\">\(text(y, 20, Self.height / 2, anchor: "middle"))</g>",
    ]
    for tick in xs.ticks {
      lines.append(line(across(tick), Self.top, across(tick), Self.height - Self.bottom))
      lines.append(text(Axis.label(tick), across(tick), Self.height - Self.bottom + 18, anchor: "middle"))
    }
    for tick in ys.ticks {
      lines.append(line(Self.left, down(tick), Self.width - Self.right, down(tick)))
      lines.append(text(Axis.label(tick), Self.left - 8, down(tick) + 4, anchor: "end"))
    }
    for point in points {
      lines.append(
        "<circle cx=\"\(number(across(point.x)))\" cy=\"\(number(down(point.y)))\" r=\"4\" fill=\"#1f77b4\"/>")
      lines.append(text(point.label, across(point.x) + 7, down(point.y) - 5, anchor: "start"))
    }
    return lines.joined(separator: "\n") + "\n</svg>\n"
  }

  private func line(_ x1: Double, _ y1: Double, _ x2: Double, _ y2: Double) -> String {
    let numbers = [x1, y1, x2, y2].map { Quantity.decimal($0, 1) }
    return "<line x1=\"\(numbers[0])\" y1=\"\(numbers[1])\" x2=\"\(numbers[2])\" y2=\"\(numbers[3])\" stroke=\"#ddd\"/>"
  }

  private func text(_ content: String, _ x: Double, _ y: Double, anchor: String) -> String {
    let escaped = content.replacing("&", with: "&amp;").replacing("<", with: "&lt;").replacing(">", with: "&gt;")
    return
      "<text x=\"\(Quantity.decimal(x, 1))\" y=\"\(Quantity.decimal(y, 1))\" text-anchor=\"\(anchor)\">\(escaped)</text>"
  }
}

/// A range of numbers with marks at round ones.
private struct Axis {
  private let low: Double
  private let high: Double
  private let isLogarithmic: Bool

  init(_ values: [Double], isLogarithmic: Bool) {
    self.isLogarithmic = isLogarithmic
    let (least, most) = (values.min() ?? 0, values.max() ?? 1)
    if isLogarithmic {
      (low, high) = (least / 1.5, most * 1.5)
    } else {
      let margin = max((most - least) * 0.08, most.magnitude * 1e-6, 1e-12)
      (low, high) = (least - margin, most + margin)
    }
  }

  /// The place of a number on the axis, 0 to 1.
  func place(_ value: Double) -> Double {
    isLogarithmic
      ? (log(value) - log(low)) / (log(high) - log(low)) : (value - low) / (high - low)
  }

  /// Round numbers on the axis: multiples of 1, 2 or 5 times a power of ten, or such numbers themselves.
  var ticks: [Double] {
    var found: [Double] = []
    if isLogarithmic {
      var power = 1.0
      while power > low { power /= 10 }
      while power <= high {
        found += [1, 2, 5].map { $0 * power }
        power *= 10
      }
      return found.filter { (low...high).contains($0) }
    }
    let span = high - low
    var power = 1.0
    while power * 5 > span { power /= 10 }
    while power * 50 <= span { power *= 10 }
    let step = ([1, 2, 5].first { power * $0 * 6 >= span } ?? 10) * power
    return (0..<8).map { ((low / step).rounded(.up) + Double($0)) * step }.filter { $0 <= high }
  }

  static func label(_ value: Double) -> String {
    if value != 0, value.magnitude < 0.01 { return value.figure }
    if value.magnitude >= 1e6 { return Quantity.decimal(value / 1e6, 1) + " M" }
    return Quantity.decimal(value, value.magnitude >= 1000 ? 0 : 2)
  }
}
