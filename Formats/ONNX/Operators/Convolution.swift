import Base
import IR
import Tensors

extension ONNXOperators {
  /// Convolution and pooling over two spatial axes.
  static let convolution: [ONNXOperator] = [
    ONNXOperator("Conv") { node, importer in
      let x = try node.input(0, &importer)
      let w = try node.input(1, &importer)
      let bias = try node.optionalInput(2, &importer)
      let weight = importer.builder.type(of: w).shape
      guard importer.builder.type(of: x).rank == 4, weight.rank == 4, let height = weight[2].fixedValue,
        let width = weight[3].fixedValue
      else {
        throw CompileError(
          .unsupported, "unsupported 'Conv' over an input of shape \(importer.builder.type(of: x).shape)")
      }
      if let kernel = try node.integers("kernel_shape"), kernel != [height, width] {
        throw CompileError(.input, "'Conv' has the kernel_shape \(kernel) and weights of shape \(weight)")
      }
      let window = try Window2D(&node, [height, width], importer.builder.type(of: x).shape, importer.opset)
      var epilogue = Epilogue()
      epilogue.bias = bias != nil
      let conv = Conv2D(
        strides: window.strides, padding: window.padding, dilations: window.dilations,
        groups: try node.integer("group", default: 1), epilogue: epilogue)
      return [try importer.builder.emit(conv, [x, w] + (bias.map { [$0] } ?? []))]
    },
    ONNXOperator("MaxPool") { node, importer in
      guard try node.integer("storage_order", default: 0) == 0, node.proto.output.count == 1 else {
        throw CompileError(.unsupported, "unsupported 'MaxPool' that returns indices")
      }
      let x = try node.input(0, &importer)
      let kernel = try requiredKernel(&node)
      let window = try Window2D(&node, kernel, importer.builder.type(of: x).shape, importer.opset)
      let pool = MaxPool2D(
        kernel: kernel, strides: window.strides, padding: window.padding, dilations: window.dilations)
      return [try importer.builder.emit(pool, x)]
    },
    ONNXOperator("AveragePool") { node, importer in
      let x = try node.input(0, &importer)
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
      return [try importer.builder.emit(pool, x)]
    },
    ONNXOperator("GlobalAveragePool") { node, importer in [try globalPool(.mean, &node, &importer)] },
    ONNXOperator("GlobalMaxPool") { node, importer in [try globalPool(.max, &node, &importer)] },
  ]

  private static func requiredKernel(_ node: inout ONNXNode) throws -> [Int] {
    guard let kernel = try node.integers("kernel_shape") else {
      throw CompileError(.input, "'\(node.type)' has no kernel_shape")
    }
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

/// Strides, padding and dilations of a window over two axes, with `auto_pad` and `ceil_mode` resolved.
struct Window2D {
  var strides: [Int]
  var dilations: [Int]
  /// Top, left, bottom, right.
  var padding: [Int]
  /// Whether `ceil_mode` made the padding larger than the node says.
  var extended = false

  /// Reads the attributes of `node` for an image of shape `[N, C, H, W]`.
  init(_ node: inout ONNXNode, _ kernel: [Int], _ shape: Shape, _ opset: Int) throws {
    guard shape.rank == 4 else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' over an input of shape \(shape)")
    }
    func pair(_ name: String) throws -> [Int] {
      let values = try node.integers(name) ?? [1, 1]
      guard values.count == 2, values.allSatisfy({ (1...1 << 20).contains($0) }) else {
        throw CompileError(.input, "'\(node.type)' has the \(name) \(values)")
      }
      return values
    }
    strides = try pair("strides")
    dilations = try pair("dilations")
    let pads = try node.integers("pads") ?? [0, 0, 0, 0]
    guard pads.count == 4, pads.allSatisfy({ (0...1 << 20).contains($0) }) else {
      throw CompileError(.unsupported, "unsupported '\(node.type)' with the pads \(pads)")
    }
    padding = pads
    let mode = try node.string("auto_pad", default: "NOTSET")
    let ceil = node.type == "Conv" ? 0 : try node.integer("ceil_mode", default: 0)
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
        let count = (size + strides[axis] - 1) / strides[axis]
        let total = max(0, (count - 1) * strides[axis] + extent - size)
        let less = total / 2
        (padding[axis], padding[axis + 2]) = mode == "SAME_UPPER" ? (less, total - less) : (total - less, less)
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
}
