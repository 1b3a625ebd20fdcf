import Base
import IR
import Tensors

/// The directions in which activations are much larger than in others, and the reflections that give each an axis of
/// its own.
///
/// They are the eigenvectors `v_1, v_2, ...` of the mean of `x x^T` whose eigenvalues are at least `salience` times the
/// mean of all. Householder's reflections turn `v_j` into plus or minus the unit vector `e_j'` of an axis, one after
/// the other:
///
///     w = R_(j-1) ... R_1 v_j,   u_j = (w + sign(w_j') e_j') / |...|,   R_j = I - 2 u_j u_j^T,   R_j w = -sign(w_j') e_j'
///
/// A Hadamard matrix behind them spreads each evenly: what lies along `v_j` adds numbers of one magnitude to all
/// channels, where a Hadamard matrix alone adds up the channels that stand out to new peaks. The axes are taken in turn
/// from the blocks of the matrix, so that no block gets more of the directions than another. ("LRQ-DiT", 2025, takes a
/// Hadamard matrix or one that knows the outliers layer by layer; the reflections are those of Householder, 1958.)
struct OutlierDirections {
  /// The most directions.
  static let limit = 4
  /// How many times the mean of the eigenvalues one must be.
  static let salience: Float = 8

  /// Orthogonal unit vectors, the strongest first.
  let vectors: [[Double]]

  /// At most so many directions of rows of which `moment`, a symmetric matrix in rows, is a multiple of the mean of
  /// `x x^T`.
  ///
  /// - Throws: `CompileError` if a number is not finite.
  init(moment: [Double], width: Int, limit: Int = Self.limit) throws {
    let trace = (0..<width).reduce(0.0) { $0 + moment[$1 * width + $1] }
    guard width > 1, trace > 0 else {
      vectors = []
      return
    }
    let scale = Double(width) / trace
    let eigen = try SymmetricEigen(moment.map { Float($0 * scale) }, order: width)
    vectors = (0..<min(limit, width)).map { width - 1 - $0 }.filter { eigen.values[$0] >= Self.salience }
      .map { index in
        let vector = eigen.vectors[index * width..<(index + 1) * width].map(Double.init)
        let largest = vector.max { $0.magnitude < $1.magnitude } ?? 1
        return largest < 0 ? vector.map { -$0 } : vector
      }
  }

  /// The reflections that turn the directions into axes, for Hadamard matrices behind them.
  func reflections(for rotation: Hadamard, width: Int) -> [[Float]] {
    let starts = rotation.runs(width: width).flatMap { run in
      (0..<run.count).map { (first: run.start + $0 * run.order, order: run.order) }
    }
    guard !starts.isEmpty else { return [] }
    var units: [[Double]] = []
    for (index, vector) in vectors.enumerated() {
      let block = starts[index % starts.count], place = index / starts.count
      guard place < block.order else { break }
      let axis = block.first + place
      var image = vector
      for unit in units {
        let product = zip(unit, image).reduce(0.0) { $0 + $1.0 * $1.1 }
        for i in image.indices { image[i] -= 2 * product * unit[i] }
      }
      image[axis] += image[axis] < 0 ? -1 : 1
      let length = image.reduce(0.0) { $0 + $1 * $1 }.squareRoot()
      units.append(image.map { $0 / length })
    }
    return units.map { unit in unit.map { Float($0) } }
  }

  /// A sum of `x x^T` over some rows of `width` numbers each, every row divided by its root mean square, so that tokens
  /// count alike; rows that are 0 or not finite are left out.
  static func moment(_ samples: [SampleRows], width: Int, part: Range<Int>) -> [Double] {
    let columns = part.count
    let rows = samples.part(part, of: width) { row in
      let square = row.reduce(0.0) { $0 + Double($1) * Double($1) } / Double(max(columns, 1))
      return square > 0 && square.isFinite ? Float(1 / square.squareRoot()) : 0
    }
    return ProductSums.gram(rows, columns: columns)
  }
}

extension Rotate {
  /// Windows that rotations are measured on at most, where no number is given.
  private static let usualSamples = 4

  /// The windows that rotations are chosen by, spread over the text.
  ///
  /// - Throws: `CompileError` of kind `.usage` if no text is named, `.unsupported` for models of several functions.
  func chosenWindows(for model: Model, _ context: PassContext, _ purpose: String) throws -> [FunctionInputs] {
    guard !text.isEmpty else {
      let name = kind == .outlierAware ? "\"\(kind.rawValue)\"" : kind.rawValue
      throw CompileError(.usage, "rotate{kind=\(name)} needs a text: rotate{kind=\(name),text=\"FILE\"}")
    }
    return try windows(for: model, context, purpose, usual: Self.usualSamples)
  }

  /// Sums of products of the rows that values have on windows, by value and part of the channels.
  func moments(
    of parts: [ValueID: [Range<Int>]], _ model: Model, function index: Int, _ windows: [FunctionInputs],
    _ context: PassContext
  ) throws -> [ValueID: [[Double]]] {
    let graph = model.functions[index]
    var found: [ValueID: [[Double]]] = [:]
    var walk = try SampleWalk(model, graph, windows)
    func note(_ value: ValueID, in walk: SampleWalk) throws {
      guard let ranges = parts[value], found[value] == nil, let width = graph.type(of: value).shape.last.fixedValue
      else { return }
      let rows = try walk.rows(of: value, columns: width)
      found[value] = ranges.map { OutlierDirections.moment(rows, width: width, part: $0) }
    }
    for input in graph.inputs { try note(input, in: walk) }
    while let node = walk.next {
      context.progress?.update("measuring directions", done: walk.step, of: walk.order.count)
      try walk.advance()
      for result in graph[node].results { try note(result, in: walk) }
    }
    return found
  }
}
