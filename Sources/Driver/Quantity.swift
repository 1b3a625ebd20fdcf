/// Numbers for a person.
package enum Quantity {
  /// `1.10 B`, `7.34 M`, `260 k`, `12`.
  package static func count(_ value: Int) -> String {
    switch value {
    case 1_000_000_000...: "\(decimal(Double(value) / 1e9, 2)) B"
    case 1_000_000...: "\(decimal(Double(value) / 1e6, 2)) M"
    case 10_000...: "\(decimal(Double(value) / 1e3, 1)) k"
    default: "\(value)"
    }
  }

  /// `1.05 GiB`, `619 MiB`, `1.0 KiB`, `12 bytes`.
  package static func bytes(_ value: Int) -> String {
    switch value {
    case (1 << 30)...: "\(decimal(Double(value) / Double(1 << 30), 2)) GiB"
    case (1 << 20)...: "\(decimal(Double(value) / Double(1 << 20), 1)) MiB"
    case (1 << 10)...: "\(decimal(Double(value) / 1024, 1)) KiB"
    default: "\(value) bytes"
    }
  }

  /// `12.3 s`, `45 ms`.
  package static func seconds(_ value: Double) -> String {
    value >= 1 ? "\(decimal(value, 2)) s" : "\(decimal(value * 1000, value >= 0.01 ? 0 : 2)) ms"
  }

  /// A number with that many digits behind the point.
  package static func decimal(_ value: Double, _ digits: Int) -> String {
    guard value.isFinite else { return "\(value)" }
    var factor = 1.0
    for _ in 0..<digits { factor *= 10 }
    let scaled = (value.magnitude * factor).rounded()
    guard scaled < 1e15 else { return "\(value)" }
    let whole = Int(scaled)
    let sign = value < 0 && whole != 0 ? "-" : ""
    if digits == 0 { return "\(sign)\(whole)" }
    let unit = Int(factor)
    let rest = String(whole % unit)
    return "\(sign)\(whole / unit)." + String(repeating: "0", count: digits - rest.count) + rest
  }
}
