-- KEYS the model's queues. ARGV: group, worker, lease ms, ms of waiting that count as one level.
-- First what other workers let go of or handed back, then the next waiting job.
-- Returns {entry, job id, index of its queue}, or {'', cursors...} to wait behind for a new entry.
local group, worker, aging = ARGV[1], ARGV[2], tonumber(ARGV[4])
local cursors = {}
for index, queue in ipairs(KEYS) do
  cursors[index] = last_delivered(queue, group)
  if not cursors[index] then
    return redis.error_reply('NOGROUP ' .. queue)
  end
end
for index, queue in ipairs(KEYS) do
  -- XAUTOCLAIM would look at the first ten held entries only.
  local idle = redis.call('XPENDING', queue, group, 'IDLE', ARGV[3], '-', '+', 1)[1]
  local item = idle and redis.call('XCLAIM', queue, group, worker, ARGV[3], idle[1])[1]
  if item and item[2] then
    return {item[1], item[2][2], index}
  end
end
local best, best_level, best_entry
for index, queue in ipairs(KEYS) do
  local head = redis.call('XRANGE', queue, '(' .. cursors[index], '+', 'COUNT', 1)[1]
  if head then
    local height = level(index, head[1], aging)
    if not best or height < best_level or (height == best_level and is_before(head[1], best_entry)) then
      best, best_level, best_entry = index, height, head[1]
    end
  end
end
if not best then
  return {'', unpack(cursors)}
end
local item = redis.call('XREADGROUP', 'GROUP', group, worker, 'COUNT', 1, 'STREAMS', KEYS[best], '>')[1][2][1]
return {item[1], item[2][2], best}
