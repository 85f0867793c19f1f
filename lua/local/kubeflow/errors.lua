-- Errors as the service sends them: gRPC codes, and the two forms of their JSON.
local json = require "local.json"

local errors = {}

errors.INVALID, errors.NOT_FOUND, errors.EXISTS, errors.PRECONDITION = 3, 5, 6, 9
errors.UNIMPLEMENTED, errors.INTERNAL = 12, 13

local statuses = { [1] = 499, [3] = 400, [5] = 404, [6] = 409, [7] = 403, [9] = 400, [10] = 409, [12] = 501, [13] = 500,
                   [14] = 503, [16] = 401 }

--- Ends the request with an error. code: one of the gRPC codes above.
function errors.raise(code, format, ...)
  error({ grpc = code, message = select("#", ...) > 0 and format:format(...) or format }, 0)
end

--- The response for a raised error, in grpc-gateway's form; or that of the upload handlers.
function errors.response(err, upload)
  local body
  if upload then
    body = { error_message = err.message, error_details = err.message }
  else
    body = { code = err.grpc, message = err.message,
             details = json.array({ { ["@type"] = "type.googleapis.com/google.rpc.Status", code = err.grpc,
                                      message = err.message } }) }
  end
  return { status = statuses[err.grpc] or 500, body = body }
end

return errors
