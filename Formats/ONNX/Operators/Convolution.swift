import Base
import IR
import Tensors

extension ONNXOperators {
  /// Convolution and pooling over one to three spatial axes.
  static let convolution: [ONNXOperator] = [
    ONNXOperator("Conv") { node, importer in
      if try node.inputType(0, &importer).rank == 5 {
        return [try ONNXVolume.convolution(&node, &importer)]
      }
      let x = try node.input(0, &importer), w = try node.input(1, &importer)
      return [try convolution(x, w, bias: node.optionalInput(2, &importer), &node, &importer)]
    },
    ONNXOperator("ConvTranspose") { node, importer in
      let plane = try ImagePlane(node.input(0, &importer), node.input(1, &importer), &node, &importer)
      let count = plane.isLine ? 1 : 2
      func sizes(_ name: String) throws -> [Int]? {
        guard let values = try node.integers(name) else { return nil }
        guard values.count == count, values.allSatisfy({ (0...1 << 20).contains($0) }) else {
          throw CompileError(.input, "'ConvTranspose' has the \(name) \(values)")
        }
        return plane.isLine ? [name == "output_shape" ? 1 : 0] + values : values
      }
      let extra = try sizes("output_padding") ?? [0, 0]
      let wanted = try sizes("output_shape")
      let mode = try node.string("auto_pad", default: "NOTSET")
      // The window of a transposed convolution has no places of its own: what is padded follows from the result.
      var window = try Window2D(&node, plane.kernel, plane.shape, importer.opset, mode: "NOTSET")
      if mode == "VALID" { window.padding = [0, 0, 0, 0] }
      let isSame = mode == "SAME_UPPER" || mode == "SAME_LOWER"
      guard isSame || mode == "VALID" || mode == "NOTSET" else {
        throw CompileError(.input, "'ConvTranspose' has the auto_pad '\(mode)'")
      }
      if wanted != nil || isSame {
        for axis in 0..<2 {
          guard let size = plane.shape[axis + 2].fixedValue else {
            throw CompileError(.unsupported, "unsupported 'ConvTranspose' to a size known only at run time")
          }
          let stride = window.strides[axis]
          let full = stride * (size - 1) + extra[axis] + (plane.kernel[axis] - 1) * window.dilations[axis] + 1
          let total = full - (wanted?[axis] ?? size * stride)
          guard total >= 0 else {
            throw CompileError(.unsupported, "unsupported 'ConvTranspose' to more than its \(full) places")
          }
          let less = total / 2
          (window.padding[axis], window.padding[axis + 2]) =
            mode == "SAME_UPPER" ? (less, total - less) : (total - less, less)
        }
      }
      let op = ConvTranspose2D(
        strides: window.strides, padding: window.padding, extra: extra, dilations: window.dilations,
        groups: try node.integer("group", default: 1))
      let bias = try node.optionalInput(2, &importer)
      let y = try importer.builder.emit(op, [plane.image, plane.weight] + (bias.map { [$0] } ?? []))
      return [try plane.restored(y, &importer)]
    },
    ONNXOperator("MaxPool") { node, importer in
      guard try node.integer("storage_order", default: 0) == 0, node.proto.output.count == 1 else {
        throw CompileError(.unsupported, "unsupported 'MaxPool' that returns indices")
      }
      return [
        try pool(&node, &importer, isMaximum: true) { node, x, importer in
          let kernel = try requiredKernel(&node)
          let window = try Window2D(&node, kernel, importer.builder.type(of: x).shape, importer.opset)
          let pool = MaxPool2D(
            kernel: kernel, strides: window.strides, padding: window.padding, dilations: window.dilations)
          return try importer.builder.emit(pool, x)
        }
      ]
    },
    ONNXOperator("AveragePool") { node, importer in
      [
        try pool(&node, &importer, isMaximum: false) { node, x, importer in
          let kernel = try requiredKernel(&node)
          let counts = try node.integer("count_include_pad", default: 0) != 0
          let window = try Window2D(&node, kernel, importer.builder.type(of: x).shape, importer.opset)
          guard window.dilations == [1, 1] else {
            throw CompileError(.unsupported, "unsupported 'AveragePool' with dilations")
          }
          guard !counts || !window.extended else {
            throw CompileError(.unsupported, "unsupported 'AveragePool' with ceil_mode that counts padding")
          }
          let pool = AveragePool2D(
            kernel: kernel, strides: window.strides, padding: window.padding, countIncludePad: counts)
          return try importer.builder.emit(pool, x)
        }
      ]
    },
    ONNXOperator("GlobalAveragePool") { node, importer in [try globalPool(.mean, &node, &importer)] },
    ONNXOperator("GlobalMaxPool") { node, importer in [try globalPool(.max, &node, &importer)] },
  ]

  /// A convolution over one or two axes with the attributes of the node.
  static func convolution(
    _ x: ValueID, _ w: ValueID, bias: ValueID?, _ node: inout ONNXNode, _ importer: inout ONNXImporter
  ) throws -> ValueID {
    let plane = try ImagePlane(x, w, &node, &importer)
    let window = try Window2D(&node, plane.kernel, plane.shape, importer.opset)
    var epilogue = Epilogue()
    epilogue.bias = bias != nil
    let conv = Conv2D(
      strides: window.strides, padding: window.padding, dilations: window.dilations,
      groups: try node.integer("group", default: 1), epilogue: epilogue)
    let y = try importer.builder.emit(conv, [plane.image, plane.weight] + (bias.map { [$0] } ?? []))
    return try plane.restored(y, &importer)
  }

  /// Pooling over one to three axes, the first two as images.
  private static func pool(
    _ node: inout ONNXNode, _ importer: inout ONNXImporter, isMaximum: Bool,
    _ build: (inout ONNXNode, ValueID, inout ONNXImporter) throws -> ValueID
  ) throws -> ValueID {
    let x = try node.input(0, &importer)
    switch importer.builder.type(of: x).rank {
    case 3: return try ONNXVolume.line(&node, &importer, build)
    case 5: return try ONNXVolume.pool(&node, &importer, isMaximum: isMaximum)
    default: return try build(&node, x, &importer)
    }
  }

  private static func requiredKernel(_ node: inout ONNXNode) throws -> [Int] {
    guard var kernel = try node.integers("kernel_shape") else {
      throw CompileError(.input, "'\(node.type)' has no kernel_shape")
    }
    // Of a line.
    if kernel.count == 1 { kernel.insert(1, at: 0) }
    guard kernel.count == 2, kernel.allSatisfy({ $0 > 0 }) else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' with the kernel_shape \(kernel)")
    }
    return kernel
  }

  private static func globalPool(
    _ function: Reduce.Function, _ node: inout ONNXNode, _ importer: inout ONNXImporter
  ) throws -> ValueID {
    let x = try node.input(0, &importer)
    let rank = importer.builder.type(of: x).rank
    guard rank > 2 else { throw CompileError(.input, "'\(node.type)' of an input of rank \(rank)") }
    return try importer.builder.emit(Reduce(function, axes: Array(2..<rank), keepDims: true), x)
  }
}

/// The image and the weights of a convolution; those over one axis as images of one line.
struct ImagePlane {
  var image: ValueID
  var weight: ValueID
  /// `[N, C, H, W]`, and height and width of the window.
  var shape: Shape
  var kernel: [Int]
  var isLine: Bool

  init(_ x: ValueID, _ w: ValueID, _ node: inout ONNXNode, _ importer: inout ONNXImporter) throws {
    (image, weight) = (x, w)
    let (x, w) = (importer.builder.type(of: image).shape, importer.builder.type(of: weight).shape)
    guard (3...4).contains(x.rank), w.rank == x.rank, w.fixedSizes != nil else {
      throw CompileError(
        .unsupported, "unsupported '\(node.type)' over an input of shape \(x) with weights of shape \(w)")
    }
    isLine = x.rank == 3
    if isLine {
      image = try importer.builder.emit(Reshape([x[0], x[1], 1, x[2]]), image)
      weight = try importer.builder.emit(Reshape([w[0], w[1], 1, w[2]]), weight)
    }
    shape = importer.builder.type(of: image).shape
    kernel = importer.builder.type(of: weight).shape.dims[2...].compactMap(\.fixedValue)
    let stated = try node.integers("kernel_shape")
    guard stated == nil || stated == Array(kernel.suffix(x.rank - 2)) else {
      throw CompileError(.input, "'\(node.type)' has the kernel_shape \(stated ?? []) and weights of shape \(w)")
    }
  }

  /// A result with the axes that the image had.
  func restored(_ result: ValueID, _ importer: inout ONNXImporter) throws -> ValueID {
    guard isLine else { return result }
    let y = importer.builder.type(of: result).shape
    return try importer.builder.emit(Reshape([y[0], y[1], y[3]]), result)
  }
}

/// Strides, padding and dilations of a window over two axes, with `auto_pad` and `ceil_mode` resolved.
struct Window2D {
  var strides: [Int]
  var dilations: [Int]
  /// Top, left, bottom, right.
  var padding: [Int]
  /// Whether `ceil_mode` made the padding larger than the node says.
  var extended = false

  /// Reads the attributes of `node` for an image of shape `[N, C, H, W]`; where these speak of one axis, the first is a line.
  /// A given `mode` stands for the attribute `auto_pad`.
  init(_ node: inout ONNXNode, _ kernel: [Int], _ shape: Shape, _ opset: Int, mode given: String? = nil) throws {
    guard shape.rank == 4 else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' over an input of shape \(shape)")
    }
    func pair(_ name: String) throws -> [Int] {
      var values = try node.integers(name) ?? [1, 1]
      if values.count == 1, shape[2] == 1, kernel[0] == 1 { values.insert(1, at: 0) }
      guard values.count == 2, values.allSatisfy({ (1...1 << 20).contains($0) }) else {
        throw CompileError(.input, "'\(node.type)' has the \(name) \(values)")
      }
      return values
    }
    strides = try pair("strides")
    dilations = try pair("dilations")
    var pads = try node.integers("pads") ?? [0, 0, 0, 0]
    if pads.count == 2, shape[2] == 1, kernel[0] == 1 { pads = [0, pads[0], 0, pads[1]] }
    guard pads.count == 4, pads.allSatisfy({ (0...1 << 20).contains($0) }) else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' with the pads \(pads)")
    }
    padding = pads
    let mode = try given ?? node.string("auto_pad", default: "NOTSET")
    let ceil = node.type.hasPrefix("Conv") ? 0 : try node.integer("ceil_mode", default: 0)
    for axis in 0..<2 {
      let extent = dilations[axis] * (kernel[axis] - 1) + 1
      switch mode {
      case "NOTSET": break
      case "VALID": (padding[axis], padding[axis + 2]) = (0, 0)
      case "SAME_UPPER", "SAME_LOWER":
        guard let size = shape[axis + 2].fixedValue else {
          throw CompileError(
            .unsupported, "unsupported '\(node.type)' with auto_pad over a size known only at run time")
        }
        (padding[axis], padding[axis + 2]) = Self.same(size, stride: strides[axis], extent: extent, mode)
      default: throw CompileError(.input, "'\(node.type)' has the auto_pad '\(mode)'")
      }
      if ceil != 0 {
        guard let size = shape[axis + 2].fixedValue else {
          throw CompileError(
            .unsupported, "unsupported '\(node.type)' with ceil_mode over a size known only at run time")
        }
        let room = size + padding[axis] + padding[axis + 2] - extent
        guard room >= 0 else { throw CompileError(.input, "'\(node.type)' has a window larger than its image") }
        let rest = room % strides[axis]
        // A window that would begin in the padding behind the image is dropped.
        let next = (room / strides[axis] + 1) * strides[axis]
        if rest != 0, next < size + padding[axis] {
          padding[axis + 2] += strides[axis] - rest
          extended = true
        }
      }
    }
  }

  /// The padding before and behind an axis of `size` places that gives a window over `extent` of them one result for each
  /// `stride`, for the modes `SAME_UPPER` and `SAME_LOWER`, which put an odd place behind or before.
  static func same(_ size: Int, stride: Int, extent: Int, _ mode: String) -> (before: Int, behind: Int) {
    let count = (size + stride - 1) / stride
    let total = max(0, (count - 1) * stride + extent - size)
    let less = total / 2
    return mode == "SAME_UPPER" ? (less, total - less) : (total - less, less)
  }
}
