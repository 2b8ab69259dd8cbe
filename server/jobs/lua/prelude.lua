-- Joined in front of every script. KEYS[1..6] of a script about one job: job, events, queue, tombstone, previews, due.
-- Times are Redis' own, in milliseconds.
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

local function field(name)
  return redis.call('HGET', KEYS[1], name) or ''
end

local function number(name)
  return tonumber(field(name)) or 0
end

-- Readers hear of the log by one short stream for all jobs; a script tells it once.
local is_told = false
local function tell()
  if not is_told then
    redis.call('XADD', 'news', 'MAXLEN', '~', 4096, '*', 'job', string.sub(KEYS[1], 5))
    is_told = true
  end
end

local function append(kind, body)
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  redis.call('XADD', KEYS[2], seq .. '-0', 'type', kind, 'at', now, 'body', body)
  tell()
  return seq
end

-- A preview takes the place of the one before of the same image. They have a stream of their own: a stream frees its
-- memory by whole nodes, so previews that were deleted between patches would stay.
local function append_preview(image, body)
  local seq = redis.call('HINCRBY', KEYS[1], 'seq', 1)
  local before = field('preview' .. image)
  if before ~= '' then
    redis.call('XDEL', KEYS[5], before .. '-0')
  end
  redis.call('XADD', KEYS[5], seq .. '-0', 'type', 'preview', 'at', now, 'body', body)
  redis.call('HSET', KEYS[1], 'preview' .. image, seq)
  tell()
end

local function leave_queue(group, entry)
  redis.call('XACK', KEYS[3], group, entry)
  redis.call('XDEL', KEYS[3], entry)
end

local function is_terminal(state)
  return state == 'completed' or state == 'failed' or state == 'canceled'
end

local function is_mine(worker, epoch)
  return field('state') == 'running' and field('owner') == worker and field('epoch') == epoch
end

local function is_late()
  local deadline = number('deadline')
  return deadline > 0 and now >= deadline
end

-- What the job's worker has to do: 0 go on, 1 cancel, 2 the deadline has passed.
local function order()
  if field('cancel') == '1' then
    return 1
  end
  return is_late() and 2 or 0
end
