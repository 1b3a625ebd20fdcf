import IR

/// Places for the values of one function.
///
/// Values that must share a place form a class, which is live where one of its members is. Classes are placed by size,
/// largest first, each at the lowest offset that no class alive at the same time occupies (greedy by size; Pisarchyk and
/// Lee, 2020).
struct MemoryPlan {
  /// A value to be placed.
  struct Item {
    var value: ValueID
    var byteCount: Int
    /// The step that writes it (-1: before the first) and the last step that reads it.
    var live: ClosedRange<Int>
  }

  private struct Group {
    var members: [Int]
    var byteCount: Int
    var intervals: [ClosedRange<Int>]
  }

  private var items: [Item]
  private var parent: [Int]
  private var index: [ValueID: Int]

  init(_ items: [Item]) {
    self.items = items
    parent = Array(items.indices)
    index = Dictionary(uniqueKeysWithValues: items.enumerated().map { ($1.value, $0) })
  }

  private func root(_ item: Int) -> Int {
    var item = item
    while parent[item] != item { item = parent[item] }
    return item
  }

  private func members(_ root: Int) -> [Int] { items.indices.filter { self.root($0) == root } }

  /// Gives values one place, if they are never needed at the same time; `touching` tells whether one may be written in
  /// the very step that reads the other for the last time.
  ///
  /// - Returns: false, with nothing changed, if that cannot be.
  mutating func unite(_ values: [ValueID], touching: (ValueID, ValueID, Int) -> Bool) -> Bool {
    let roots = Set(values.compactMap { index[$0] }.map { root($0) })
    guard let first = roots.min(), values.allSatisfy({ index[$0] != nil }) else { return false }
    guard roots.count > 1 else { return true }
    let all = items.indices.filter { roots.contains(root($0)) }.sorted {
      (items[$0].live.lowerBound, items[$0].live.upperBound) < (items[$1].live.lowerBound, items[$1].live.upperBound)
    }
    for (a, b) in zip(all, all.dropFirst()) {
      let end = items[a].live.upperBound, begin = items[b].live.lowerBound
      guard end < begin || (end == begin && touching(items[a].value, items[b].value, begin)) else { return false }
    }
    for item in roots { parent[item] = first }
    return true
  }

  /// The offset of each value, and the bytes of all.
  func placed() -> (offsets: [ValueID: Int], byteCount: Int) {
    var groups: [Int: Group] = [:]
    for item in items.indices {
      let root = root(item)
      var group = groups[root] ?? Group(members: [], byteCount: 0, intervals: [])
      group.members.append(item)
      group.byteCount = max(group.byteCount, items[item].byteCount)
      group.intervals.append(items[item].live)
      groups[root] = group
    }
    let order = groups.sorted { ($1.value.byteCount, $0.key) < ($0.value.byteCount, $1.key) }.map(\.value)
    var placed: [(group: Group, range: Range<Int>)] = []
    var offsets: [ValueID: Int] = [:]
    var total = 0
    for group in order {
      let size = max(group.byteCount, 1).aligned(to: 64)
      let busy = placed.filter { other in
        other.group.intervals.contains { a in group.intervals.contains { $0.overlaps(a) } }
      }.map(\.range).sorted { $0.lowerBound < $1.lowerBound }
      var offset = 0
      for range in busy {
        if offset + size <= range.lowerBound { break }
        offset = max(offset, range.upperBound)
      }
      placed.append((group, offset..<offset + size))
      for member in group.members { offsets[items[member].value] = offset }
      total = max(total, offset + size)
    }
    return (offsets, total)
  }
}
