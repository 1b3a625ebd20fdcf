import Base
import IR
import Tensors

extension TFLiteOperators {
  /// Images of another size or depth.
  static let images: [TFLiteOperator] = [
    TFLiteOperator("RESIZE_BILINEAR") { node, importer in
      typealias Field = TFLiteSchema.ResizeBilinear
      try resize(
        node, &importer, .linear, alignCorners: node.flag(Field.alignCorners),
        halfPixels: node.flag(Field.halfPixelCenters))
    },
    TFLiteOperator("RESIZE_NEAREST_NEIGHBOR") { node, importer in
      typealias Field = TFLiteSchema.ResizeNearest
      try resize(
        node, &importer, .nearest, alignCorners: node.flag(Field.alignCorners),
        halfPixels: node.flag(Field.halfPixelCenters))
    },
    TFLiteOperator("SPACE_TO_DEPTH") { node, importer in
      let block = try node.integer(TFLiteSchema.Blocks.size)
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        guard sizes.count == 4, (1...1 << 16).contains(block), sizes[1] % block == 0, sizes[2] % block == 0 else {
          throw CompileError(.input, "'SPACE_TO_DEPTH' of shape \(sizes) in blocks of \(block)")
        }
        let (h, w, c) = (sizes[1] / block, sizes[2] / block, sizes[3])
        let apart = try importer.builder.emit(Reshape(dims([sizes[0], h, block, w, block, c])), x)
        let turned = try importer.builder.emit(Transpose([0, 1, 3, 2, 4, 5]), apart)
        return try importer.builder.emit(Reshape(dims([sizes[0], h, w, block * block * c])), turned)
      }
    },
    TFLiteOperator("DEPTH_TO_SPACE") { node, importer in
      let block = try node.integer(TFLiteSchema.Blocks.size)
      try move(node, &importer) { x, importer in
        let sizes = try importer.sizes(x)
        guard sizes.count == 4, (1...1 << 16).contains(block), sizes[3] % (block * block) == 0 else {
          throw CompileError(.input, "'DEPTH_TO_SPACE' of shape \(sizes) in blocks of \(block)")
        }
        let (h, w, c) = (sizes[1], sizes[2], sizes[3] / block / block)
        let apart = try importer.builder.emit(Reshape(dims([sizes[0], h, w, block, block, c])), x)
        let turned = try importer.builder.emit(Transpose([0, 1, 3, 2, 4, 5]), apart)
        return try importer.builder.emit(Reshape(dims([sizes[0], h * block, w * block, c])), turned)
      }
    },
  ]

  private static func dims(_ sizes: [Int]) -> [Dim] { sizes.map { .fixed($0) } }

  private static func resize(
    _ node: TFLiteNode, _ importer: inout TFLiteImporter, _ mode: Resize2D.Mode, alignCorners: Bool, halfPixels: Bool
  ) throws {
    let size = try importer.integers(node.input(1))
    let x = try importer.real(node.input(0))
    let image = try importer.sizes(x)
    guard image.count == 4, size.count == 2, size.allSatisfy({ (1...1 << 24).contains($0) }), image[1] > 0, image[2] > 0
    else { throw CompileError(.input, "'\(node.type)' of shape \(image) to \(size)") }
    // The nearest pixel is that below the place, with aligned corners the nearer one.
    let op = Resize2D(
      height: size[0], width: size[1], scales: [Float(size[0]) / Float(image[1]), Float(size[1]) / Float(image[2])],
      mode: mode, coordinates: alignCorners ? .alignCorners : halfPixels ? .halfPixel : .asymmetric,
      rounding: alignCorners || halfPixels ? .preferCeil : .floor, layout: .last)
    try importer.define(node.output(), numbers: importer.builder.emit(op, x))
  }
}
