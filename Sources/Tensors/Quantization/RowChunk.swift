/// Some rows of weights on their way to codes by ``GPTQ``.
final class RowChunk {
  /// The most rows of a chunk: few enough for the caches, and the same on every machine.
  static let rows = 64
  private static let lanes = 16
  private static let sets = rows / lanes
  /// The most columns for which a scale is tried by rounding the whole group.
  private static let trialColumns = 128

  private let method: GPTQ
  private let metric: GPTQ.Metric
  private let format: BlockFormat
  private let grid: GroupGrid
  private let count: Int
  private let columns: Int
  private let groups: [Range<Int>]
  private let groupOf: [Int]

  /// The weights that are aimed at, then what is left of them; one row after the other.
  private let target: UnsafeMutablePointer<Float>
  /// Codes, in the same places.
  private let codes: UnsafeMutablePointer<Float>
  /// Scales and zero points by group, each with one per row.
  private let scales: UnsafeMutablePointer<Float>
  private let zeros: UnsafeMutablePointer<Float>

  init(_ method: GPTQ, _ metric: GPTQ.Metric, _ format: BlockFormat, count: Int) {
    self.method = method
    self.metric = metric
    self.format = format
    self.count = count
    grid = GroupGrid(format)
    columns = metric.columns
    groups = GPTQ.groups(format, columns: columns)
    groupOf = groups.enumerated().flatMap { group, range in range.map { _ in group } }
    target = .allocate(capacity: Self.rows * columns)
    codes = .allocate(capacity: Self.rows * columns)
    scales = .allocate(capacity: Self.rows * groups.count)
    zeros = .allocate(capacity: Self.rows * groups.count)
  }

  deinit {
    for memory in [target, codes, scales, zeros] { memory.deallocate() }
  }

  /// Quantizes the rows; the errors of the codes and of rounding to nearest.
  func run(
    _ weights: UnsafePointer<Float>, _ correction: GPTQ.Correction?, offsetRow: Int,
    into blocks: UnsafeMutableRawPointer
  ) -> (error: Double, nearest: Double) {
    target.update(from: weights, count: count * columns)
    if let correction { aim(weights, correction, offsetRow) }
    if method.rounding == .adaptive { roundAlone() } else { roundInOrder() }
    let residual = UnsafeMutablePointer<Float>.allocate(capacity: count * columns)
    let gradient = UnsafeMutablePointer<Float>.allocate(capacity: count * columns)
    defer {
      residual.deallocate()
      gradient.deallocate()
    }
    for row in 0..<count {
      for column in 0..<columns {
        let place = row * columns + column, group = groupOf[column] * Self.rows + row
        residual[place] = target[place] - (codes[place] - zeros[group]) * scales[group]
      }
    }
    multiplyByHessian(residual, into: gradient)
    for _ in 0..<method.refinements {
      refineScales(residual, gradient)
      refineCodes(residual, gradient)
    }
    if method.rounding == .adaptive {
      for _ in 0..<Self.sweeps where refineCodes(residual, gradient) == 0 { break }
    }
    if method.refinements > 0 || method.rounding == .adaptive { multiplyByHessian(residual, into: gradient) }
    return store(weights, residual, gradient, into: blocks)
  }

  private func multiplyByHessian(_ rows: UnsafePointer<Float>, into result: UnsafeMutablePointer<Float>) {
    metric.hessian.withUnsafeBufferPointer { hessian in
      guard let h = hessian.baseAddress else { return }
      MatrixProduct(rows: count, columns: columns, depth: columns)(rows, h, into: result)
    }
  }

  // MARK: Target

  /// Adds `(W shift + offset) H^-1` to the target, with `H^-1 = U^T U` in the order of the columns.
  private func aim(_ weights: UnsafePointer<Float>, _ correction: GPTQ.Correction, _ offsetRow: Int) {
    let size = count * columns
    let right = UnsafeMutablePointer<Float>.allocate(capacity: size)
    let other = UnsafeMutablePointer<Float>.allocate(capacity: size)
    defer {
      right.deallocate()
      other.deallocate()
    }
    correction.shift.withUnsafeBufferPointer { shift in
      guard let s = shift.baseAddress else { return }
      MatrixProduct(rows: count, columns: columns, depth: columns)(weights, s, into: right)
    }
    if !correction.offset.isEmpty {
      for i in 0..<size { right[i] += correction.offset[offsetRow * columns + i] }
    }
    for row in 0..<count {
      for (place, column) in metric.order.enumerated() {
        other[row * columns + place] = right[row * columns + column]
      }
    }
    metric.factor.withUnsafeBufferPointer { factor in
      guard let u = factor.baseAddress else { return }
      MatrixProduct(rows: count, columns: columns, depth: columns, transposeB: true)(other, u, into: right)
      MatrixProduct(rows: count, columns: columns, depth: columns)(right, u, into: other)
    }
    for row in 0..<count {
      for (place, column) in metric.order.enumerated() {
        target[row * columns + column] += other[row * columns + place]
      }
    }
  }

  // MARK: Rounding in order

  /// The columns, as places in the order, that are rounded before the later ones are made up.
  private var blocks: [Range<Int>] {
    guard method.order != .full, groups.allSatisfy({ $0.count <= Self.trialColumns }) else {
      return stride(from: 0, to: columns, by: 64).map { $0..<min(columns, $0 + 64) }
    }
    var first = 0
    return groups.indices.map { _ in
      let length = groups[groupOf[metric.order[first]]].count
      defer { first += length }
      return first..<first + length
    }
  }

  /// How often adaptive rounding goes through all codes at most.
  private static let sweeps = 32

  /// The numbers of all rows, one column after the other in their order.
  private func fill(_ w: UnsafeMutablePointer<Float>) {
    for (place, column) in metric.order.enumerated() {
      for row in 0..<count { w[place * Self.rows + row] = target[row * columns + column] }
      for row in count..<Self.rows { w[place * Self.rows + row] = 0 }
    }
  }

  /// Rounds each number to the nearest code of a scale chosen beforehand.
  private func roundAlone() {
    let w = UnsafeMutablePointer<Float>.allocate(capacity: columns * Self.rows)
    defer { w.deallocate() }
    fill(w)
    chooseScales(w)
    for (place, column) in metric.order.enumerated() {
      for set in 0..<Self.sets where set * Self.lanes < count {
        let parameters = groupOf[column] * Self.rows + set * Self.lanes
        let choice = GroupGrid.Choice(scale: load(scales + parameters), zero: load(zeros + parameters))
        let code = grid.codes(load(w + place * Self.rows + set * Self.lanes), choice, choice.inverse)
        for lane in 0..<min(Self.lanes, count - set * Self.lanes) {
          codes[(set * Self.lanes + lane) * columns + column] = code[lane]
        }
      }
    }
  }

  private func roundInOrder() {
    let rows = Self.rows
    // One column after the other, with the numbers of all rows.
    let w = UnsafeMutablePointer<Float>.allocate(capacity: columns * rows)
    let errors = UnsafeMutablePointer<Float>.allocate(capacity: max(64, Self.trialColumns) * rows)
    defer {
      w.deallocate()
      errors.deallocate()
    }
    fill(w)
    let blocks = self.blocks
    let isDynamic = method.order != .full && groups.allSatisfy { $0.count <= Self.trialColumns }
    if !isDynamic { chooseScales(w) }
    metric.factor.withUnsafeBufferPointer { factor in
      guard let u = factor.baseAddress else { return }
      for block in blocks {
        let corner = Corner(u, columns, block)
        for set in 0..<Self.sets where set * Self.lanes < count {
          let lanes = w + block.lowerBound * rows + set * Self.lanes
          if isDynamic {
            choose(groupOf[metric.order[block.lowerBound]], set, lanes, corner)
          }
          round(block, set, lanes, corner, errors + set * Self.lanes)
        }
        guard block.upperBound < columns else { continue }
        MatrixProduct(
          rows: columns - block.upperBound, columns: rows, depth: block.count, transposeA: true, strideA: columns,
          strideB: rows, strideC: rows, alpha: -1, beta: 1)(
            u + block.lowerBound * columns + block.upperBound, errors, into: w + block.upperBound * rows)
      }
    }
  }

  /// The part of `U` that belongs to a block, one column after the other, and one over its diagonal.
  private struct Corner {
    let count: Int
    let columns: [Float]
    let inverse: [Float]

    init(_ u: UnsafePointer<Float>, _ stride: Int, _ block: Range<Int>) {
      let n = block.count
      count = n
      var columns = [Float](repeating: 0, count: n * n)
      for i in 0..<n {
        for j in i..<n { columns[j * n + i] = u[(block.lowerBound + i) * stride + block.lowerBound + j] }
      }
      inverse = (0..<n).map { 1 / columns[$0 * n + $0] }
      self.columns = columns
    }
  }

  @inline(__always)
  private func load(_ source: UnsafePointer<Float>) -> Lanes {
    UnsafeRawPointer(source).loadUnaligned(as: Lanes.self)
  }

  /// Rounds the columns of a block for sixteen rows, and leaves their errors.
  private func round(
    _ block: Range<Int>, _ set: Int, _ w: UnsafePointer<Float>, _ corner: Corner,
    _ errors: UnsafeMutablePointer<Float>
  ) {
    let rows = Self.rows, n = block.count
    let used = min(Self.lanes, count - set * Self.lanes)
    corner.columns.withUnsafeBufferPointer { u in
      for j in 0..<n {
        let column = metric.order[block.lowerBound + j]
        let parameters = groupOf[column] * rows + set * Self.lanes
        let choice = GroupGrid.Choice(scale: load(scales + parameters), zero: load(zeros + parameters))
        var value = load(w + j * rows)
        for i in 0..<j { value -= load(errors + i * rows) * u[j * n + i] }
        let code = grid.codes(value, choice, choice.inverse)
        let error = (value - (code - choice.zero) * choice.scale) * corner.inverse[j]
        UnsafeMutableRawPointer(errors + j * rows).storeBytes(of: error, as: Lanes.self)
        for lane in 0..<used { codes[(set * Self.lanes + lane) * columns + column] = code[lane] }
      }
    }
  }

  // MARK: Scales

  /// Chooses the scales of a group for sixteen rows by what rounding it would give.
  private func choose(_ group: Int, _ set: Int, _ w: UnsafePointer<Float>, _ corner: Corner) {
    let rows = Self.rows, n = corner.count
    withUnsafeTemporaryAllocation(of: Lanes.self, capacity: 2 * max(n, 1)) { memory in
      guard let values = memory.baseAddress else { return }
      let errors = values + n
      var extent = GroupGrid.Extent()
      for j in 0..<n {
        values[j] = load(w + j * rows)
        extent.add(values[j])
      }
      var best = grid.choice(0, extent, count: n)
      if method.searchesScales {
        corner.columns.withUnsafeBufferPointer { u in
          corner.inverse.withUnsafeBufferPointer { inverse in
            var smallest = loss(best, values, errors, n, u, inverse)
            for index in 1..<grid.choiceCount {
              let choice = grid.choice(index, extent, count: n)
              let loss = loss(choice, values, errors, n, u, inverse)
              let isBetter = loss .< smallest
              smallest.replace(with: loss, where: isBetter)
              best.scale.replace(with: choice.scale, where: isBetter)
              best.zero.replace(with: choice.zero, where: isBetter)
            }
          }
        }
      }
      keep(best, group, set)
    }
  }

  /// The sum of squares of the errors that rounding a group leaves.
  @inline(__always)
  private func loss(
    _ choice: GroupGrid.Choice, _ values: UnsafePointer<Lanes>, _ errors: UnsafeMutablePointer<Lanes>, _ n: Int,
    _ u: UnsafeBufferPointer<Float>, _ inverse: UnsafeBufferPointer<Float>
  ) -> Lanes {
    let factor = choice.inverse
    var total = Lanes.zero
    for j in 0..<n {
      var value = values[j]
      for i in 0..<j { value -= errors[i] * u[j * n + i] }
      let error = (value - (grid.codes(value, choice, factor) - choice.zero) * choice.scale) * inverse[j]
      errors[j] = error
      total += error * error
    }
    return total
  }

  /// Chooses the scales of all groups beforehand, by the errors weighted with the diagonal of `H`.
  private func chooseScales(_ w: UnsafePointer<Float>) {
    let rows = Self.rows
    var members = [[Int]](repeating: [], count: groups.count)
    for (place, column) in metric.order.enumerated() { members[groupOf[column]].append(place) }
    for (group, places) in members.enumerated() {
      let weights = places.map { place in
        let column = metric.order[place]
        return metric.hessian[column * columns + column]
      }
      for set in 0..<Self.sets where set * Self.lanes < count {
        var extent = GroupGrid.Extent()
        for place in places { extent.add(load(w + place * rows + set * Self.lanes)) }
        var best = grid.choice(0, extent, count: places.count)
        if method.searchesScales {
          func loss(_ choice: GroupGrid.Choice) -> Lanes {
            let inverse = choice.inverse
            var total = Lanes.zero
            for (index, place) in places.enumerated() {
              let value = load(w + place * rows + set * Self.lanes)
              let code = grid.codes(value, choice, inverse)
              let error = value - (code - choice.zero) * choice.scale
              total += error * error * weights[index]
            }
            return total
          }
          var smallest = loss(best)
          for index in 1..<grid.choiceCount {
            let choice = grid.choice(index, extent, count: places.count)
            let sum = loss(choice)
            let isBetter = sum .< smallest
            smallest.replace(with: sum, where: isBetter)
            best.scale.replace(with: choice.scale, where: isBetter)
            best.zero.replace(with: choice.zero, where: isBetter)
          }
        }
        keep(best, group, set)
      }
    }
  }

  private func keep(_ choice: GroupGrid.Choice, _ group: Int, _ set: Int) {
    let first = group * Self.rows + set * Self.lanes
    UnsafeMutableRawPointer(scales + first).storeBytes(of: choice.scale, as: Lanes.self)
    UnsafeMutableRawPointer(zeros + first).storeBytes(of: choice.zero, as: Lanes.self)
  }

  // MARK: Refinement

  /// Solves for the scale of each group, the others as they are. `gradient` is `residual H`.
  private func refineScales(_ residual: UnsafeMutablePointer<Float>, _ gradient: UnsafeMutablePointer<Float>) {
    let length = groups.map(\.count).max() ?? 0
    // What the levels of a group are, and what they give on all inputs.
    let levels = UnsafeMutablePointer<Float>.allocate(capacity: count * length)
    let products = UnsafeMutablePointer<Float>.allocate(capacity: count * columns)
    defer {
      levels.deallocate()
      products.deallocate()
    }
    metric.hessian.withUnsafeBufferPointer { hessian in
      guard let h = hessian.baseAddress else { return }
      for (group, range) in groups.enumerated() {
        for row in 0..<count {
          let line = codes + row * columns, zero = zeros[group * Self.rows + row]
          for column in range { levels[row * range.count + column - range.lowerBound] = line[column] - zero }
        }
        MatrixProduct(rows: count, columns: columns, depth: range.count)(
          levels, h + range.lowerBound * columns, into: products)
        for row in 0..<count {
          refineScale(
            group * Self.rows + row, range, levels + row * range.count, products + row * columns,
            residual + row * columns, gradient + row * columns)
        }
      }
    }
  }

  private func refineScale(
    _ place: Int, _ range: Range<Int>, _ levels: UnsafePointer<Float>, _ product: UnsafePointer<Float>,
    _ residual: UnsafeMutablePointer<Float>, _ gradient: UnsafeMutablePointer<Float>
  ) {
    var along = 0.0, size = 0.0
    for (index, column) in range.enumerated() {
      along += Double(gradient[column]) * Double(levels[index])
      size += Double(product[column]) * Double(levels[index])
    }
    guard size > 0 else { return }
    let scale = grid.rounded(scales[place] + Float(along / size))
    let step = scale - scales[place]
    // The error falls by 2 step along - step^2 size.
    guard scale != 0, 2 * Double(step) * along > Double(step) * Double(step) * size else { return }
    scales[place] = scale
    for (index, column) in range.enumerated() { residual[column] -= step * levels[index] }
    for column in 0..<columns { gradient[column] -= step * product[column] }
  }

  /// Moves single codes to where the error is least, the others as they are; how many were moved.
  @discardableResult
  private func refineCodes(_ residual: UnsafeMutablePointer<Float>, _ gradient: UnsafeMutablePointer<Float>) -> Int {
    var moved = 0
    metric.hessian.withUnsafeBufferPointer { hessian in
      guard let h = hessian.baseAddress else { return }
      for column in metric.order {
        let other = h + column * columns
        let own = 1 / other[column]
        let parameters = scales + groupOf[column] * Self.rows
        for row in 0..<count {
          let line = gradient + row * columns
          let steps = line[column] * own / parameters[row]
          guard steps.magnitude > grid.leastMove, steps.magnitude < 0x1p20 else { continue }
          let place = row * columns + column
          let code = grid.nearest(codes[place] + steps)
          let move = (code - codes[place]) * parameters[row]
          guard move != 0 else { continue }
          codes[place] = code
          residual[place] -= move
          moved += 1
          for k in 0..<columns { line[k] -= move * other[k] }
        }
      }
    }
    return moved
  }

  // MARK: Blocks

  /// Writes each row as it is better, from codes or rounded to nearest; the sums of both errors, without damping.
  private func store(
    _ weights: UnsafePointer<Float>, _ residual: UnsafePointer<Float>, _ gradient: UnsafePointer<Float>,
    into blocks: UnsafeMutableRawPointer
  ) -> (error: Double, nearest: Double) {
    let rowBytes = format.rowBytes(columns: columns)
    let difference = UnsafeMutablePointer<Float>.allocate(capacity: count * columns)
    let product = UnsafeMutablePointer<Float>.allocate(capacity: count * columns)
    defer {
      difference.deallocate()
      product.deallocate()
    }
    for row in 0..<count {
      let line = difference + row * columns
      format.quantizeRow(weights + row * columns, columns: columns, into: blocks + row * rowBytes)
      format.dequantizeRow(blocks + row * rowBytes, columns: columns, into: line)
      for column in 0..<columns { line[column] = target[row * columns + column] - line[column] }
    }
    multiplyByHessian(difference, into: product)
    func error(_ residual: UnsafePointer<Float>, _ gradient: UnsafePointer<Float>) -> (damped: Double, plain: Double) {
      let left = UnsafeBufferPointer(start: residual, count: columns)
      let damped = dot(left, UnsafeBufferPointer(start: gradient, count: columns))
      var added = 0.0
      for column in 0..<columns { added += Double(metric.ridge[column]) * Double(left[column]) * Double(left[column]) }
      return (damped, max(0, damped - added))
    }
    var sums = (error: 0.0, nearest: 0.0)
    for row in 0..<count {
      let nearest = error(difference + row * columns, product + row * columns)
      let found = error(residual + row * columns, gradient + row * columns)
      sums.nearest += nearest.plain
      if found.damped < nearest.damped {
        sums.error += found.plain
        store(row, into: blocks + row * rowBytes)
      } else {
        sums.error += nearest.plain
      }
    }
    return sums
  }

  /// Writes the codes of a row.
  private func store(_ row: Int, into blocks: UnsafeMutableRawPointer) {
    let length = format.groupLength(columns: columns)
    let blockBytes = format.blockBytes(columns: columns)
    withUnsafeTemporaryAllocation(of: UInt8.self, capacity: max(length, 1)) { buffer in
      guard let bytes = buffer.baseAddress else { return }
      for (group, range) in groups.enumerated() {
        let place = group * Self.rows + row
        let zero = grid.code(of: grid.nearest(zeros[place]))
        for column in range { bytes[column - range.lowerBound] = grid.code(of: codes[row * columns + column]) }
        (bytes + range.count).update(repeating: zero, count: length - range.count)
        format.assemble(
          scale: scales[place], zeroPoint: zero, codes: bytes, length: length, into: blocks + group * blockBytes)
      }
    }
  }
}
