/// The number of insertions, deletions, substitutions and swaps of neighbours that turn one text into the other
/// (optimal string alignment distance).
package func editDistance(_ a: String, _ b: String) -> Int {
  let a = Array(a.utf8), b = Array(b.utf8)
  if a.isEmpty || b.isEmpty { return max(a.count, b.count) }
  var beforeLast = [Int](repeating: 0, count: b.count + 1)
  var last = Array(0...b.count)
  var current = beforeLast
  for i in 1...a.count {
    current[0] = i
    for j in 1...b.count {
      let substituted = last[j - 1] + (a[i - 1] == b[j - 1] ? 0 : 1)
      current[j] = min(last[j] + 1, current[j - 1] + 1, substituted)
      if i > 1, j > 1, a[i - 1] == b[j - 2], a[i - 2] == b[j - 1] {
        current[j] = min(current[j], beforeLast[j - 2] + 1)
      }
    }
    (beforeLast, last, current) = (last, current, beforeLast)
  }
  return last[b.count]
}

/// The end of a message about a name that is not known: `, did you mean 'conv2d'?`; empty if nothing is like it. `sigil` is put
/// before the candidate.
package func suggestion(for name: String, in candidates: some Sequence<String>, sigil: String = "") -> String {
  nearest(name, in: candidates).map { ", did you mean '\(sigil)\($0)'?" } ?? ""
}

/// The candidate that is most like `name`, for suggestions in messages.
///
/// - Returns: nil if no candidate is within a third of the length of `name` (at least two) edits; the earliest of equals.
package func nearest(_ name: String, in candidates: some Sequence<String>) -> String? {
  let length = name.utf8.count
  // Longer names are no typing mistakes, and the distance takes quadratic time.
  guard length <= 256 else { return nil }
  let limit = max(2, length / 3)
  var best: (distance: Int, candidate: String)?
  for candidate in candidates where abs(candidate.utf8.count - length) <= limit {
    let distance = editDistance(name, candidate)
    if distance <= limit, distance < length, distance < best?.distance ?? Int.max { best = (distance, candidate) }
  }
  return best?.candidate
}
