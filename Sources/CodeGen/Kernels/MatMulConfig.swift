import IR
import Tensors

/// One specialised y[T, N] = epilogue(x[T, K] W[N, K]^T).
///
/// W lies in panels of `vectors` x lanes rows. Within a panel k runs slowest (groups of k, for quantized weights), then
/// vectors, then the lanes of a vector; quantized panels hold four bytes of consecutive k per lane. Codes of fewer bits
/// lie in planes (`NarrowCodes`), one plane of a group after the other. In a gated matmul even vectors hold gate rows
/// (canonical rows 2j) and odd vectors the up rows (2j + 1) of the same results.
package struct MatMulConfig: Hashable, Codable, Sendable {
  package var weights: WeightType
  /// Group length of int8 activations; nil for f32 activations.
  package var activationGroup: Int?
  /// Canonical rows of W, and columns.
  package var rows: Int
  package var depth: Int
  /// Number of tokens; `.fixed(1)` gives a matrix-vector product.
  package var tokens: Extent
  package var epilogue: Epilogue
  /// Elements between rows of x; for f32 activations only.
  package var inputStride: Int
  /// Vectors of rows in a panel, and tokens computed at a time.
  package var vectors: Int
  package var tokenTile: Int
  /// Whether x is f32 and every thread quantizes it for itself, after norm and rotation if there are any; for one token.
  package var quantizesInput: Bool
  /// Bits of the codes that it quantizes to, 4 to 8.
  package var codeBits: Int
  package var norm: NormInput?
  /// The rotation of x, behind the norm if there is one.
  package var rotation: RotationInput?

  package init(
    weights: WeightType, activationGroup: Int? = nil, rows: Int, depth: Int, tokens: Extent,
    epilogue: Epilogue = .identity, inputStride: Int? = nil, vectors: Int, tokenTile: Int,
    quantizesInput: Bool = false, codeBits: Int = 8, norm: NormInput? = nil, rotation: RotationInput? = nil
  ) {
    precondition(!quantizesInput || (activationGroup != nil && tokens == .fixed(1)))
    self.quantizesInput = quantizesInput
    self.codeBits = codeBits
    self.norm = norm
    self.rotation = rotation
    self.weights = weights
    self.activationGroup = activationGroup
    self.rows = rows
    self.depth = depth
    self.tokens = tokens
    self.epilogue = epilogue
    self.inputStride = inputStride ?? depth
    self.vectors = vectors
    self.tokenTile = tokenTile
  }

  /// Whether tokens are a loop of the kernel (`MatMulTokenLoop`), not rows of a tile in registers.
  func loopsOverTokens(_ target: Target) -> Bool {
    target.loopsOverTokens && weights.isQuantized && activationGroup != nil && tokens != .fixed(1)
  }

  /// Results of one token.
  package var columns: Int { epilogue.gated ? rows / 2 : rows }

  /// `mcc_matmul_w4g32a8_2048x5632_silu_residual_8x32_avx512`: types, K x N, epilogue, tile, instruction set.
  package func name(target: Target) -> String {
    var parts = ["mcc_matmul", weights.text + (activationGroup == nil ? "" : "a8"), "\(depth)x\(rows)"]
    if let group = activationGroup, group != weightGroup { parts[1] += "g\(group)" }
    if quantizesInput {
      let names = [norm?.name, rotation?.name].compactMap { $0 }
      parts.append(names.isEmpty ? "quantizing" : names.joined(separator: "_"))
      if codeBits < 8 { parts.append("to_a\(codeBits)") }
    }
    if inputStride != depth { parts.append("stride\(inputStride)") }
    if epilogue.bias { parts.append("bias") }
    if epilogue.residual == .beforeActivation { parts.append("residual") }
    if epilogue.activation != .none { parts.append(epilogue.activation.rawValue) }
    if epilogue.gated { parts.append("gated") }
    if epilogue.residual == .afterActivation { parts.append("residual") }
    if let fixed = tokens.fixedValue, fixed != 1 { parts.append("tokens\(fixed)") }
    // Tiles of one token of any number are another kernel than the product of one token.
    if tokens.fixedValue == nil, tokenTile == 1 { parts.append("tokens") }
    parts.append("\(tokens.fixedValue == 1 ? 1 : tokenTile)x\(vectors * target.lanes)")
    parts.append(target.suffix)
    return parts.joined(separator: "_")
  }

  /// Columns per weight scale; nil for one scale per row and for weights that are not quantized.
  var weightGroup: Int? {
    switch weights {
    case .w8(let group), .float8(let group): group
    case .narrow(let codes): codes.group
    case .f32, .f16, .bf16: nil
    }
  }

  /// Columns that share a scale of either side: the unit of the inner loops of quantized kernels.
  var group: Int { activationGroup ?? weightGroup ?? 32 }

  /// The panel layout of the weights.
  package func panel(target: Target) -> PanelLayout {
    PanelLayout(
      weights: weights, rows: rows, depth: depth, lanes: target.panelLanes,
      vectors: vectors / target.vectorsPerPanelLanes, gated: epilogue.gated,
      offset: activationGroup != nil && target.storedEightBitWeights == .u8,
      paddedDepth: activationGroup.map { (depth + $0 - 1) / $0 * $0 })
  }
}

/// Where each weight of a matrix lies in panels (see `MatMulConfig`); computed alike by the packer and the kernels.
package struct PanelLayout: Hashable, Sendable {
  package var weights: WeightType
  package var rows: Int
  package var depth: Int
  package var lanes: Int
  package var vectors: Int
  package var gated: Bool
  /// Whether signed bytes, codes or the levels of a table, are stored plus 128.
  package var offset: Bool
  /// Columns up to which quantized rows are padded with codes of value 0.
  package var paddedDepth: Int

  package init(
    weights: WeightType, rows: Int, depth: Int, lanes: Int, vectors: Int, gated: Bool, offset: Bool,
    paddedDepth: Int? = nil
  ) {
    self.weights = weights
    self.rows = rows
    self.depth = depth
    self.lanes = lanes
    self.vectors = vectors
    self.gated = gated
    switch weights {
    case .f32, .f16, .bf16:
      self.offset = false
      self.paddedDepth = depth
    case .w8(let group), .float8(let group):
      if case .w8 = weights { self.offset = offset } else { self.offset = false }
      let unit = group ?? 32
      self.paddedDepth = (max(paddedDepth ?? depth, depth) + unit - 1) / unit * unit
    case .narrow(let codes):
      self.offset = codes.hasTable && offset
      self.paddedDepth = (max(paddedDepth ?? depth, depth) + codes.group - 1) / codes.group * codes.group
    }
  }

  /// Rows of a panel.
  package var panelRows: Int { vectors * lanes }

  package var panelCount: Int { (rows + panelRows - 1) / panelRows }

  /// Columns per scale; the whole padded row for one scale per row.
  package var group: Int {
    switch weights {
    case .w8(let group), .float8(let group): group ?? paddedDepth
    case .narrow(let codes): codes.group
    case .f32, .f16, .bf16: depth
    }
  }

  /// Bytes of the scales of one group of a panel.
  package var scaleBytes: Int {
    switch weights {
    case .w8(nil), .float8: 4 * panelRows
    case .w8: 2 * panelRows
    case .narrow(let codes): codes.scale.byteCount * panelRows
    case .f32, .f16, .bf16: 0
    }
  }

  /// Bytes of one group before its codes: the scales, then the zero points, one byte per row.
  package var headerBytes: Int {
    if case .narrow(let codes) = weights, codes.hasZeroPoints { return scaleBytes + panelRows }
    return scaleBytes
  }

  /// Bytes of one group of a panel: scales, zero points, then codes.
  package var groupBytes: Int {
    switch weights {
    case .f32: 4 * panelRows * depth
    case .f16, .bf16: 2 * panelRows * depth
    case .w8, .float8: scaleBytes + panelRows * group
    case .narrow(let codes): headerBytes + panelRows * group * codes.bits / 8
    }
  }

  /// Bytes of a panel before its groups: the table of levels if there is one.
  package var preambleBytes: Int {
    if case .narrow(let codes) = weights { codes.preambleBytes } else { 0 }
  }

  package var panelBytes: Int { group == 0 ? 0 : preambleBytes + paddedDepth / group * groupBytes }

  package var byteCount: Int { panelCount * panelBytes }

  /// The canonical row that lane `lane` of vector `vector` of a panel holds; may lie beyond the last row.
  package func row(panel: Int, vector: Int, lane: Int) -> Int {
    if gated { return 2 * ((panel * vectors + vector) / 2 * lanes + lane) + vector % 2 }
    return (panel * vectors + vector) * lanes + lane
  }

  /// The panels that a packed layout describes; nil if it is of another kind.
  package init?(_ layout: PackedLayout) {
    self.init(unchecked: layout)
    guard packed == layout else { return nil }
  }

  /// The panels that the name and the parameters of a packed layout describe, whatever its sizes; nil if it is of another
  /// kind.
  init?(unchecked layout: PackedLayout) {
    guard layout.name.hasPrefix("panel_"), let weights = WeightType(text: layout.name.dropFirst(6)),
      layout.parameters.count == 7
    else { return nil }
    let numbers = layout.parameters
    guard numbers.allSatisfy({ $0 >= 0 }), numbers[2] > 0, numbers[3] > 0 else { return nil }
    self.init(
      weights: weights, rows: numbers[0], depth: numbers[1], lanes: numbers[2], vectors: numbers[3],
      gated: numbers[4] != 0, offset: numbers[5] != 0, paddedDepth: numbers[6])
  }

  /// The layout as an encoding of tensor types.
  package var packed: PackedLayout {
    PackedLayout(
      name: "panel_\(weights.text)", rows: panelRows, panelBytes: panelBytes,
      parameters: [rows, depth, lanes, vectors, gated ? 1 : 0, offset ? 1 : 0, paddedDepth])
  }
}

/// Where the quantized activations of one token lie: the codes of all (padded) columns, then per group the f32 scale, then
/// per group -8 times the sum of its codes as i32, which corrects for weights stored with an offset.
package struct ActivationLayout: Hashable, Sendable {
  /// The name of the packed layout.
  package static let name = "activations_a8"

  package var depth: Int
  package var group: Int

  package init(depth: Int, group: Int) {
    self.depth = depth
    self.group = group
  }

  package var groups: Int { (depth + group - 1) / group }
  package var paddedDepth: Int { groups * group }
  package var scaleOffset: Int { paddedDepth }
  package var sumOffset: Int { paddedDepth + 4 * groups }
  /// Bytes of one token, a multiple of 32.
  package var rowBytes: Int { (paddedDepth + 8 * groups + 31) / 32 * 32 }

  /// The layout as an encoding of tensor types.
  package var packed: PackedLayout {
    PackedLayout(name: Self.name, rows: 1, panelBytes: rowBytes, parameters: [depth, group])
  }
}
